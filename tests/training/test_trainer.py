"""A stage trains, stops, resumes and repeats as documented."""

import signal
import threading
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from scfusionttt.errors import InputFileError, NonFiniteLossError, OutputError, SettingError
from scfusionttt.model import stages
from scfusionttt.model.stages import train_classifier, train_pretraining
from scfusionttt.training import callbacks, distributed
from scfusionttt.training import trainer as runner
from scfusionttt.training.callbacks import History
from scfusionttt.training.pretrain import PretrainModule
from support import raises_one_line

TERMS = ("loss", "projection", "z_protein", "z_rna")


@pytest.fixture(scope="module")
def pretrain(network, cells, config, run):
    """Return a function that pretrains a fresh network and gives its weights and its history."""

    def make(stage=config.pretrain, **settings):
        fresh = network()
        with pytest.MonkeyPatch.context() as patch:
            # Weights are compared with those of checkpoints, to which latent scaling comes later.
            patch.setattr(stages, "fit_latent", lambda *_: None)
            history = train_pretraining(fresh, cells, stage, run(**settings))
        return {name: value.clone() for name, value in fresh.state_dict().items()}, history

    return make


@pytest.fixture(scope="module")
def unbroken(pretrain):
    """Return weights and history of a run that nothing disturbed."""
    return pretrain()


@pytest.fixture
def interrupted():
    """Return a context in which training is stopped, as Ctrl+C does it, when some epochs are done."""

    @contextmanager
    def make(*, after):
        def interrupt(history, trainer, module):
            if trainer.current_epoch >= after:
                raise KeyboardInterrupt

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(History, "on_train_epoch_start", interrupt)
            yield

    return make


def assert_same_weights(one, other):
    assert [name for name in one if not torch.equal(one[name], other[name])] == []


def assert_same_history(one, other):
    pd.testing.assert_frame_equal(one.drop(columns="seconds"), other.drop(columns="seconds"), check_exact=True)


def test_the_loss_falls_and_the_history_has_a_row_for_each_epoch(unbroken):
    _, history = unbroken
    assert history["epoch"].tolist() == [1, 2, 3]
    assert set(history["stage"]) == {"pretrain"}
    losses = [f"{part}_{term}" for part in ("train", "val") for term in TERMS if (part, term) != ("val", "projection")]
    assert list(history.columns) == ["stage", "epoch", "seconds", *losses]
    assert (history["seconds"] > 0).all()
    assert history["train_loss"].iloc[-1] < 0.95 * history["train_loss"].iloc[0]
    assert history["val_loss"].iloc[-1] < history["val_loss"].iloc[0]


def test_the_same_seed_gives_the_same_bits_and_another_does_not(pretrain, unbroken):
    weights, history = unbroken
    torch.rand(3)  # the caller's random state has no say
    again, history_again = pretrain()
    assert_same_weights(weights, again)
    assert_same_history(history, history_again)
    other, _ = pretrain(seed=1)
    assert not torch.equal(weights["rna_from_z.layers.0.weight"], other["rna_from_z.layers.0.weight"])


def test_the_callers_random_states_are_left_alone(pretrain):
    torch.manual_seed(5)
    before, numpy_before = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    pretrain()
    assert torch.equal(torch.get_rng_state(), before)
    assert np.array_equal(np.random.get_state()[1], numpy_before)  # noqa: NPY002


def test_an_interrupted_run_resumes_bit_for_bit(pretrain, unbroken, tmp_path, interrupted, caplog):
    weights, history = unbroken
    with interrupted(after=2), pytest.raises(KeyboardInterrupt):
        pretrain(checkpoints=tmp_path)
    with caplog.at_level("INFO", "scfusionttt"):
        resumed, whole = pretrain(checkpoints=tmp_path, resume=True)
    assert [text for text in caplog.messages if "resum" in text] == ["pretrain: resuming after epoch 2"]
    assert_same_history(history, whole)
    assert_same_weights(weights, resumed)


def test_a_full_disk_keeps_the_last_state_and_the_run_resumes_from_it(
    pretrain, unbroken, tmp_path, interrupted, full_disk
):
    with interrupted(after=1), pytest.raises(KeyboardInterrupt):
        pretrain(checkpoints=tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with (
        full_disk(),
        pytest.raises(OutputError, match=r"(best|last)\.ckpt was not written: .*; nothing was changed"),
    ):
        pretrain(checkpoints=tmp_path, resume=True)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    assert_same_weights(unbroken[0], pretrain(checkpoints=tmp_path, resume=True)[0])


def test_the_state_is_kept_after_every_epoch_better_or_not(pretrain, validation_losses, tmp_path):
    """It was kept after the better ones only, and a resumed run had to do the others again."""
    validation_losses(1.0, 2.0, 3.0)
    pretrain(checkpoints=tmp_path)
    epochs = {name: torch.load(tmp_path / f"{name}.ckpt", weights_only=True)["epoch"] for name in ("best", "last")}
    assert epochs == {"best": 0, "last": 2}


def test_a_folder_for_checkpoints_that_cannot_be_created_is_refused(pretrain, tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(OutputError, match=r"file cannot be created \(File exists\); choose another folder"):
        pretrain(checkpoints=tmp_path / "file")


def test_ctrl_c_is_a_keyboard_interrupt_and_still_works_afterwards(pretrain, interrupted):
    """Lightning switches the signal off and calls sys.exit: a notebook's kernel died of it."""
    before = signal.getsignal(signal.SIGINT)
    with interrupted(after=0), pytest.raises(KeyboardInterrupt):
        pretrain()
    assert signal.getsignal(signal.SIGINT) is before


def test_a_finished_run_resumes_to_itself(pretrain, unbroken, tmp_path):
    weights, history = unbroken
    pretrain(checkpoints=tmp_path)
    again, history_again = pretrain(checkpoints=tmp_path, resume=True)
    assert_same_weights(weights, again)
    assert_same_history(history, history_again)


def test_without_resume_an_older_run_in_the_folder_is_ignored(pretrain, unbroken, tmp_path):
    (tmp_path / "last.ckpt").write_bytes(b"of another run")
    weights, _ = pretrain(checkpoints=tmp_path)
    assert_same_weights(weights, unbroken[0])


def test_resume_without_a_checkpoint_starts_from_the_beginning(pretrain, unbroken, tmp_path):
    assert_same_weights(pretrain(checkpoints=tmp_path, resume=True)[0], unbroken[0])


@pytest.mark.parametrize("most", [0, 1000])
def test_a_state_that_was_cut_short_is_refused_in_one_line(pretrain, tmp_path, most):
    """Of an empty file, as a power failure leaves, torch raises an error without a message: it was an IndexError."""
    pretrain(checkpoints=tmp_path)
    state = tmp_path / "last.ckpt"
    state.write_bytes(state.read_bytes()[:most])
    with raises_one_line(InputFileError, "last.ckpt cannot be read (", "to start again"):
        pretrain(checkpoints=tmp_path, resume=True)


def test_a_run_resumes_only_with_its_own_settings_and_cells(pretrain, tmp_path):
    pretrain(checkpoints=tmp_path, identity={"cells": "these"})
    with pytest.raises(SettingError, match="different settings, cells, labels or model"):
        pretrain(checkpoints=tmp_path, resume=True, identity={"cells": "others"})


def test_a_new_run_removes_the_states_of_an_earlier_one(pretrain, interrupted, unbroken, tmp_path):
    """Stopped before its first epoch was done, it had gone on with another run's weights."""
    pretrain(checkpoints=tmp_path, seed=9, identity={"seed": 9})
    with interrupted(after=0), pytest.raises(KeyboardInterrupt):
        pretrain(checkpoints=tmp_path)
    assert_same_weights(pretrain(checkpoints=tmp_path, resume=True)[0], unbroken[0])


@pytest.fixture
def validation_losses(monkeypatch):
    """Return a function that sets the validation loss of each epoch, and gives the weights that had it."""

    def make(*losses):
        weights = []

        def validation_step(module, batch, batch_idx):
            module.log("val_loss", torch.tensor(losses[module.current_epoch]), batch_size=1)
            weights.append({name: value.clone() for name, value in module.network.state_dict().items()})

        monkeypatch.setattr(PretrainModule, "validation_step", validation_step)
        return weights

    return make


def test_training_stops_when_patience_runs_out_and_the_best_weights_remain(pretrain, config, validation_losses):
    by_epoch = validation_losses(3.0, 1.0, 2.0, 2.0, 0.5)
    best, history = pretrain(replace(config.pretrain, epochs=9, patience=2))
    assert history["val_loss"].tolist() == [3, 1, 2, 2]
    assert_same_weights(best, by_epoch[1])


def test_without_validation_cells_the_last_weights_remain(network, cells, config, run, monkeypatch):
    last = []
    monkeypatch.setattr(
        PretrainModule, "on_train_epoch_end", lambda self: last.append(self.network.rna_from_z.layers[0].weight.clone())
    )
    monkeypatch.setattr(stages, "fit_latent", lambda *_: None)
    trained = network()
    train_pretraining(trained, cells, replace(config.pretrain, epochs=2, validation_fraction=0.0), run())
    assert torch.equal(trained.rna_from_z.layers[0].weight, last[-1])


def test_resuming_a_run_that_stopped_early_trains_no_further(pretrain, config, validation_losses, tmp_path):
    """It trained one epoch more with every resume."""
    validation_losses(3.0, 1.0, 2.0, 0.5)
    stage = replace(config.pretrain, epochs=9, patience=1)
    weights, history = pretrain(stage, checkpoints=tmp_path)
    again, history_again = pretrain(stage, checkpoints=tmp_path, resume=True)
    assert_same_history(history, history_again)
    assert_same_weights(weights, again)


def test_checkpoints_that_were_moved_still_know_the_best_weights(
    pretrain, config, tmp_path, interrupted, validation_losses
):
    """The first epoch after the move overwrote them, better or not."""
    by_epoch = validation_losses(1.0, 2.0, 2.0)
    with interrupted(after=2), pytest.raises(KeyboardInterrupt):
        pretrain(checkpoints=tmp_path / "before")
    (tmp_path / "before").rename(tmp_path / "after")
    resumed, _ = pretrain(checkpoints=tmp_path / "after", resume=True)
    assert_same_weights(resumed, by_epoch[0])


def test_a_loss_that_is_not_finite_stops_training_and_names_the_cells(network, cells, config, run, monkeypatch):
    row = 5
    monkeypatch.setitem(cells.__dict__, "rna", cells.rna.copy())
    cells.rna.data[cells.rna.indptr[row]] = np.nan
    stage = replace(config.pretrain, batch_size=4, validation_fraction=0.0)
    with pytest.raises(NonFiniteLossError, match=rf"{cells.cell_names[row]}.*\(pretrain.lr=0.00125"):
        train_pretraining(network(), cells, stage, run())


@pytest.mark.parametrize("stage", ["finetune", "transfer"])
def test_the_advice_names_the_setting_of_the_stage(network, cells, config, run, monkeypatch, stage):
    monkeypatch.setitem(cells.__dict__, "rna", cells.rna.copy())
    cells.rna.data[:] = np.nan
    with pytest.raises(NonFiniteLossError, match=r"\(finetune\.lr="):
        train_classifier(network(stage), cells, config.finetune, run())


def test_frozen_weights_of_a_student_stay_the_same_and_the_rest_learns(network, cells, config, run):
    student = network("transfer")
    before = {name: value.detach().clone() for name, value in student.named_parameters()}
    history = train_classifier(student, cells, replace(config.finetune, epochs=1), run())
    after = dict(student.named_parameters())
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {name for name, p in student.named_parameters() if p.requires_grad}
    assert set(history["stage"]) == {"transfer"}
    assert list(history.columns)[3:] == ["train_loss", "val_accuracy", "val_loss"]


def test_every_epoch_shows_the_cells_in_another_order(network, cells, config, run, monkeypatch):
    seen = []
    step = PretrainModule.training_step
    monkeypatch.setattr(
        PretrainModule, "training_step", lambda self, batch, i: (seen.append(batch.row), step(self, batch, i))[1]
    )
    stage = replace(config.pretrain, epochs=2, batch_size=200, validation_fraction=0.0)
    train_pretraining(network(), cells, stage, run())
    assert len(seen) == 2
    assert not torch.equal(*seen)
    assert torch.equal(*(rows.sort().values for rows in seen))


def test_progress_is_one_line_for_each_epoch_on_stderr(pretrain, capsys):
    _, history = pretrain(progress=True)
    out, err = capsys.readouterr()
    assert out == ""
    lines = err.splitlines()
    assert len(lines) == 3
    row = history.iloc[1]
    assert lines[1].startswith(
        f"pretrain epoch 2/3  train {row['train_loss']:.4f}  val {row['val_loss']:.4f}"
    )  # fmt: skip


def test_a_long_epoch_reports_its_progress(pretrain, capsys, monkeypatch):
    monkeypatch.setattr(callbacks, "MINUTE", 0.0)
    pretrain(progress=True)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 3 * (3 + 1)
    assert lines[1].startswith("pretrain epoch 1/3  batch 2/3  loss ")
    assert lines[3].startswith("pretrain epoch 1/3  train ")


def test_on_a_terminal_progress_is_a_bar(pretrain, capsys, monkeypatch):
    monkeypatch.setattr(runner.sys.stderr, "isatty", lambda: True, raising=False)
    pretrain(progress=True)
    assert "pretrain epoch 3/3" in capsys.readouterr().err


def test_the_bar_stops_at_ctrl_c(pretrain, interrupted, monkeypatch):
    """It was drawn on by its thread, and the cursor of the terminal stayed hidden."""
    monkeypatch.setattr(runner.sys.stderr, "isatty", lambda: True, raising=False)
    before = threading.enumerate()
    with interrupted(after=1), pytest.raises(KeyboardInterrupt):
        pretrain(progress=True)
    assert set(threading.enumerate()) <= set(before)


def test_temporary_checkpoints_are_removed_and_named_ones_stay(pretrain, config, tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(runner.tempfile, "tempdir", None)
    one_epoch = replace(config.pretrain, epochs=1)
    pretrain(one_epoch, checkpoints=tmp_path / "named")
    pretrain(one_epoch)
    assert not list((tmp_path / "tmp").iterdir())
    assert sorted(path.name for path in (tmp_path / "named").iterdir()) == ["best.ckpt", "last.ckpt", "run.json"]


def test_several_machines_need_a_folder_for_checkpoints_in_common(pretrain, monkeypatch, tmp_path):
    """The first machine's temporary folder was announced to the others, which do not have it."""
    monkeypatch.setattr(distributed, "_current", distributed.Process(rank=0, size=4, local_size=2))
    with pytest.raises(SettingError, match=r"nodes > 1\) needs checkpoints: a folder that all"):
        pretrain()
