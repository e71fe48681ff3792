"""Models on a store: the same results as in memory, streamed."""

import json

import numpy as np
import pytest
import torch
from mudata import MuData
from scipy import sparse

from scfusionttt import FusionTTT
from scfusionttt.data import loader as loader_module
from scfusionttt.data.assemble import as_citeseq
from scfusionttt.data.features import match_features
from scfusionttt.data.loader import StreamedCells, cell_dataset, make_loader
from scfusionttt.data.preprocess import matched_gene_counts, matched_protein_counts
from scfusionttt.data.store.sources import open_source
from scfusionttt.data.store.stored import open_store
from scfusionttt.data.store.write import write_store
from scfusionttt.errors import InputDataError, SettingError
from scfusionttt.io.quiet_warnings import quiet
from scfusionttt.model import estimate as estimate_module


@pytest.fixture(scope="module")
def path(cells, tmp_path_factory):
    folder = tmp_path_factory.mktemp("stored")
    with quiet():
        cells.write_h5mu(folder / "cells.h5mu")
    write_store([open_source(folder / "cells.h5mu")], folder / "cells.zarr", seed=3)
    return folder / "cells.zarr"


@pytest.fixture
def small_windows(monkeypatch):
    monkeypatch.setattr(loader_module, "WINDOW", 48)


def datasets(model, path, cells):
    labels = np.arange(160) % 3
    for cite in (open_store(path), as_citeseq(cells)):
        yield cell_dataset(cite, match_features(cite, model.features), model.preprocessing, labels=labels)


def test_batches_are_those_of_memory_in_another_order(trained, path, cells, small_windows):
    streamed, whole = datasets(trained.pretrained, path, cells)
    for seed in (None, 0):
        loader = make_loader(streamed, batch_size=16, shuffle_seed=seed)
        batches = list(loader)
        assert len(loader) == len(batches) == 10
        assert sorted(torch.cat([batch.row for batch in batches]).tolist()) == list(range(160))
        for batch in batches:
            expected = whole.__getitems__(batch.row.tolist())
            assert all(torch.equal(a, b) for a, b in zip(batch, expected, strict=True))


def test_cells_of_a_small_batch_are_read_several_times(trained, path, cells, small_windows):
    streamed, whole = datasets(trained.pretrained, path, cells)
    streamed.batches = (np.arange(160) < 8).astype(np.int64)[:, None]
    loader = make_loader(streamed.balanced(), batch_size=16, shuffle_seed=0)
    batches = list(loader)
    rows = torch.cat([batch.row for batch in batches])
    assert len(rows) == 160
    assert (torch.bincount(rows)[:8] > 2).all()
    for batch in batches:
        assert torch.equal(batch.rna, whole.__getitems__(batch.row.tolist()).rna)


def test_some_cells_are_loaded_in_their_order(trained, path, cells):
    streamed, whole = datasets(trained.pretrained, path, cells)
    rows = np.array([70, 3, 159])
    found, expected = streamed.subset(rows).loaded().__getitems__([0, 1, 2]), whole.__getitems__(rows.tolist())
    assert all(torch.equal(a, b) for a, b in zip(found[:5], expected[:5], strict=True))


def test_none_of_the_cells_are_no_damage(trained, path):
    """The error for a selection that matches no cell said to copy the store again."""
    none = open_store(path)[np.zeros(160, dtype=bool)]
    assert none.rna.shape == (0, 300) and none.protein.n_obs == len(none.obs) == 0
    with pytest.raises(InputDataError, match="the input has 0 cells"):
        trained.pretrained.embed(none)


def test_the_halves_of_some_cells_add_up_to_their_counts(trained, path, cells):
    streamed, whole = datasets(trained.pretrained, path, cells)
    rows = np.array([70, 3, 159])
    first, second = streamed.subset(rows).halves(5)
    assert list(first.cell_names) == list(cells.obs_names[rows]) and first.labels.tolist() == [1, 0, 0]
    match = match_features(whole.cite, trained.pretrained.features)
    expected = matched_gene_counts(whole.cite[rows], match), matched_protein_counts(whole.cite[rows], match)
    for count, counts in zip((matched_gene_counts, matched_protein_counts), expected, strict=True):
        added = count(first.cite, first.match) + count(second.cite, second.match)
        np.testing.assert_array_equal(*(sparse.csr_array(values).toarray() for values in (added, counts)))


def test_ranks_share_every_batch_of_one_process(trained, path, cells, small_windows):
    streamed, _ = datasets(trained.pretrained, path, cells)
    whole = [batch.row for batch in make_loader(streamed, batch_size=53, shuffle_seed=1)]
    shares = [make_loader(streamed, batch_size=53, shuffle_seed=1, rank=rank, size=3) for rank in range(3)]
    joined = [torch.cat([part.row for part in parts]) for parts in zip(*shares, strict=True)]
    assert torch.equal(torch.cat(joined), torch.cat(whole))
    assert [len(rows) for rows in joined] == [53, 53, 54]  # the last cell alone could not be shared


def test_results_come_in_the_inputs_order_and_are_those_of_memory(trained, path, cells, small_windows):
    stored = open_store(path)
    for model in (trained.pretrained, trained.finetuned):
        np.testing.assert_allclose(model.embed(stored), model.embed(cells), atol=1e-5)
    for refine in (False, True):
        table, expected = (trained.finetuned.predict(each, refine=refine) for each in (stored, cells))
        assert list(table.index) == list(cells.obs_names)
        np.testing.assert_allclose(table[trained.finetuned.classes], expected[trained.finetuned.classes], atol=1e-4)


def test_cells_of_one_of_two_joined_inputs_are_those_of_that_input(trained, path, cells, tmp_path):
    """As where labels are known of one input only, whose genes and proteins are not all of the model's."""
    with quiet():
        fewer = MuData({"rna": cells["rna"][:, 60:].copy(), "prot": cells["prot"][:, 2:].copy()})
        fewer.write_h5mu(tmp_path / "fewer.h5mu")
    inputs = [path.parent / "cells.h5mu", tmp_path / "fewer.h5mu"]
    write_store([open_source(name) for name in inputs], tmp_path / "both.zarr")
    streamed, whole = (
        cell_dataset(cite, match_features(cite, trained.pretrained.features), trained.pretrained.preprocessing)
        for cite in (open_store(tmp_path / "both.zarr"), as_citeseq(fewer))
    )
    found, expected = (cells.__getitems__([0, 70, 159]) for cells in (streamed.subset(np.arange(160, 320)), whole))
    assert not found.rna_present.all()
    assert all(torch.equal(a, b) for a, b in zip(found[:5], expected[:5], strict=True))


def pretrain(path, tiny, **options):
    settings = {**tiny, "pretrain": {"epochs": 3}}
    return FusionTTT("fast", progress=False, **settings).pretrain(open_store(path), **options)


def test_a_run_that_was_stopped_goes_on_bit_for_bit(path, tiny, small_windows, tmp_path, monkeypatch):
    unbroken = pretrain(path, tiny)
    read, calls = StreamedCells.read, []

    def stopped(self, positions):
        calls.append(1)
        if len(calls) == 14:  # in the third epoch of 4 windows each, behind 2 reads that measure memory
            raise KeyboardInterrupt
        return read(self, positions)

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(StreamedCells, "read", stopped)
        pretrain(path, tiny, checkpoints=tmp_path / "run")
    assert (tmp_path / "run" / "last.ckpt").exists()
    resumed = pretrain(path, tiny, checkpoints=tmp_path / "run", resume=True)
    for name, weight in unbroken.network.state_dict().items():
        assert torch.equal(weight, resumed.network.state_dict()[name]), name


@pytest.mark.parametrize("window", [48, 4096])  # of which the first is compared
def test_a_run_goes_on_only_with_its_counts(path, tiny, cells, window, tmp_path, monkeypatch):
    """Resumed on a store with the same names and other counts it had trained on, silently."""
    monkeypatch.setattr("scfusionttt.data.store.stored.WINDOW", window)
    pretrain(path, tiny, checkpoints=tmp_path / "run")
    first = next(open_store(path).blocks()).rna.obs_names
    with quiet():
        other = cells.copy()
        changed = np.flatnonzero(~other.obs_names.isin(first)) if window == 48 else np.arange(160)
        counts = other["rna"].X.toarray()
        counts[changed] = counts[changed][:, np.random.default_rng(0).permutation(300)]
        other["rna"].X = sparse.csr_matrix(counts)
        other.write_h5mu(tmp_path / "other.h5mu")
    write_store([open_source(tmp_path / "other.h5mu")], tmp_path / "other.zarr", seed=3)
    with pytest.raises(SettingError, match="different settings, cells, labels or model"):
        pretrain(tmp_path / "other.zarr", tiny, checkpoints=tmp_path / "run", resume=True)


def test_the_command_line_goes_from_inputs_to_types(scfusionttt, path, cells, tmp_path):
    tiny = "--preset fast --set network.width=16 --set network.latent=8 --epochs 1 --device cpu"
    steps = [
        f"store {path.parent / 'cells.h5mu'} --out {tmp_path / 's.zarr'}",
        f"pretrain {tmp_path / 's.zarr'} --out {tmp_path / 'm1'} {tiny}",
        f"embed {tmp_path / 's.zarr'} --model {tmp_path / 'm1'} --out {tmp_path / 'z.npy'}",
        f"finetune {tmp_path / 's.zarr'} --model {tmp_path / 'm1'} --labels cell_type --train-fraction 0.7 "
        f"--out {tmp_path / 'm2'}",
        f"predict {tmp_path / 's.zarr'} --model {tmp_path / 'm2'} --out {tmp_path / 'types.csv'}",
        f"plan {tmp_path / 's.zarr'} --preset fast --json {tmp_path / 'plan.json'}",
    ]
    for step in steps:
        done = scfusionttt(step)
        assert done.code == 0, done.err
    assert np.load(tmp_path / "z.npy").shape == (160, 8 + 10 + 8)  # bottleneck, components, proteins
    names = [line.split(",")[0] for line in (tmp_path / "types.csv").read_text().splitlines()[1:]]
    assert names == list(cells.obs_names)
    plan = json.loads((tmp_path / "plan.json").read_text())
    assert (plan["cells"], plan["genes"], plan["genes_used"]) == (160, 300, 300)
    assert 2**26 < plan["memory_streamed"] < 2**34
    assert plan["seconds_per_epoch"] > 0


def test_the_plan_has_the_memory_of_what_is_fitted_after_training(path, tiny, monkeypatch):
    """Of 6,855 cells and 4,000 genes, 0.6 of the 1.4 GiB in use: the plan said 0.8."""
    monkeypatch.setattr(estimate_module.machine, "in_use", lambda device: 0)
    config = FusionTTT("fast", **tiny).config
    whole = estimate_module.estimate(open_store(path), config, device="cpu")
    monkeypatch.setattr(estimate_module, "has_fits", lambda network: False)
    training = estimate_module.estimate(open_store(path), config, device="cpu")
    assert whole.memory - training.memory == whole.memory_streamed - training.memory_streamed > 160 * 50_000


@pytest.mark.parametrize(
    "option", ["--layer counts", "--rna-modality rna", "--protein-modality prot", "--cells overlap", "--drop-empty"]
)
def test_options_that_have_no_effect_on_a_store_are_refused(option, scfusionttt, path, tmp_path):
    """--cells rna and --drop-empty were ignored."""
    result = scfusionttt(f"pretrain {path} --out {tmp_path / 'm'} {option}")
    assert result.code == 2
    assert result.err == f"scfusionttt: {option} cannot be used with a store; set it when the store is written\n"


def test_plan_refuses_options_that_have_no_effect_on_a_store(scfusionttt, path):
    result = scfusionttt(f"plan {path} --layer counts")
    assert result.code == 2
    assert "--layer counts cannot be used with a store" in result.err
