import ctypes
import io
import json
import os
import signal
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from mudata import MuData

import scfusionttt as package
from scfusionttt import cli
from scfusionttt.cli import common
from scfusionttt.cli.common import print_table
from scfusionttt.cli.flags import with_flags
from scfusionttt.cli.lock import locked
from scfusionttt.io.quiet_warnings import quiet
from scfusionttt.io.read import read
from scfusionttt.model.fusionttt import FusionTTT

VERBS = ["demo", "validate", "pretrain", "finetune", "transfer", "embed", "predict", "impute", "evaluate"]
VERBS += ["map", "explain", "report", "store", "plan", "benchmark", "ablate", "genes", "doctor", "background"]
VERBS += ["differential", "denoise"]
SMALL = "--preset fast --set network.width=16 --set network.encoder_blocks=1 --set network.latent=8"


@pytest.fixture
def here(tmp_path, monkeypatch, cells, rna_cells, trained):
    """A folder with the files of a user, who stands in it."""
    with quiet():
        cells.write_h5mu(tmp_path / "cells.h5mu")
        rna_cells.write_h5ad(tmp_path / "rna.h5ad")
    trained.pretrained.save(tmp_path / "pretrained")
    trained.finetuned.save(tmp_path / "typed")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def done(result):
    assert result.code == 0, result.err
    assert "Traceback" not in result.err
    assert "Warning" not in result.err
    return result


def test_version_and_help(scfusionttt):
    assert done(scfusionttt("--version")).out == version("scfusionttt") + "\n"
    text = done(scfusionttt("--help")).out
    assert all(verb in text for verb in VERBS)
    assert scfusionttt("").code == 2


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_an_example(verb, scfusionttt):
    text = " ".join(done(scfusionttt(f"{verb} --help")).out.split())
    assert f"Usage: scfusionttt {verb}" in text
    assert f"Example: scfusionttt {verb}" in text


def test_the_whole_road(here, scfusionttt):
    """From a file of CITE-seq to the cell types of RNA-only cells, every verb on what the one before it wrote."""
    result = done(scfusionttt(f"pretrain cells.h5mu --out m1 {SMALL} --epochs 2 --seed 3 --memory 64GiB"))
    assert result.out == ""
    assert " of 64.00 GiB; batches of 64 cells, 64 at a time" in result.err
    assert "pretrain epoch 2/2" in result.err
    assert result.err.splitlines()[-1] == "m1: written"

    options = "--labels cell_type --train-fraction 0.75 --baseline --set finetune.hide_protein=0.3 --json scores.json"
    result = done(scfusionttt(f"finetune cells.h5mu --model m1 --out m2 {options}"))
    assert "held-out protocol: 40 labelled cells not used for training" in result.out
    assert "logistic regression" in result.out
    scores = json.loads(Path("scores.json").read_text())
    assert scores == FusionTTT.load("m2").metrics["finetune"]
    assert f"{scores['metrics']['accuracy']:.3f}" in result.out

    options = "--labels cell_type --train-fraction 0.3 --set finetune.class_balance=no --json student.json"
    result = done(scfusionttt(f"transfer rna.h5ad --model m2 --out m3 {options}"))
    assert "held-out protocol: 63 labelled cells not used for training" in result.out
    assert json.loads(Path("student.json").read_text())["n_cells"] == 63

    result = done(scfusionttt("transfer rna.h5ad --model m2 --out m4 --json zero.json"))
    assert result.out == ""
    assert "no scores, and zero.json is not written" in result.err
    assert "m4: written" in result.err.splitlines()

    done(scfusionttt("predict rna.h5ad --model m4 --out types.csv"))
    done(scfusionttt("embed cells.h5mu --model m2 --out fused.h5mu"))
    result = done(scfusionttt("evaluate fused.h5mu --labels cell_type --json ten.json"))
    assert result.out.startswith("unsupervised protocol: 160 cells, 3 classes")
    given = "Leiden, the number of classes given: 3 clusters; mean and std over 3 clustering seeds"
    assert result.out.splitlines()[1].strip() == given
    assert result.err == ""
    ten = json.loads(Path("ten.json").read_text())
    assert list(ten["metrics"]) == ["ARI", "NMI", "FMI", "ASW", "AMI", "JI", "SC", "CHI", "F", "DBI"]
    assert not list(here.glob("*.training")), "the state of finished runs is gone"
    assert not list(here.glob(".*")), "nothing half-written is left"


def test_settings_from_every_side(here, scfusionttt):
    """A TOML file over the preset, --set over the file, --epochs and --seed over both."""
    Path("mine.toml").write_text("seed = 5\n[network]\nwidth = 32\nheads = 4\n[pretrain]\nepochs = 7\nlr = 0.01\n")
    sides = "--config mine.toml --set network.width=16 --set network.patch=50 --epochs 1 --seed 9"
    done(scfusionttt(f"pretrain cells.h5mu --out m --preset fast {sides}"))
    model = FusionTTT.load("m")
    assert (model.config.seed, model.config.pretrain.epochs, model.config.pretrain.lr) == (9, 1, 0.01)
    assert (model.config.network.width, model.config.network.heads, model.config.network.patch) == (16, 4, 50)
    assert model.config.network.encoder_blocks == FusionTTT("fast").config.network.encoder_blocks
    options = "--labels cell_type --set finetune.classifier=finetune --set finetune.epochs=1"
    result = done(scfusionttt(f"finetune cells.h5mu --model m --out m2 {options}"))
    assert "no cells were held out" in result.err
    assert FusionTTT.load("m2").stage == "finetune"


def test_the_command_line_gives_what_python_gives(here, scfusionttt, cells):
    done(scfusionttt(f"pretrain cells.h5mu --out m {SMALL} --epochs 2"))
    done(scfusionttt("embed cells.h5mu --model m --out z.npy"))
    np.testing.assert_array_equal(np.load("z.npy"), FusionTTT.load("pretrained").embed(cells))


def test_a_cohort_and_a_new_donor(here, scfusionttt, cells):
    with quiet():
        cells.obs["donor"] = np.where(np.arange(160) % 2, "d1", "d2")
        cells.write_h5mu("cohort.h5mu")
        cells.obs["donor"] = "d3"
        cells.write_h5mu("new.h5mu")
        del cells.obs["donor"]
    result = done(scfusionttt(f"pretrain cohort.h5mu --batch-key donor --out m {SMALL} --epochs 2"))
    assert "batches: 2 levels of obs['donor']: d1, d2" in result.err
    refused = scfusionttt("embed new.h5mu --model m --out z.npy")
    assert (refused.code, refused.err.count("\n")) == (2, 1)
    assert "trained on: d3; embed these cells with map" in refused.err

    result = done(scfusionttt("map new.h5mu --model m --out mapped.csv --out-model m2 --json batches.json"))
    assert "without_counterpart" in result.out
    assert json.loads(Path("batches.json").read_text())[0]["batch"] == "d3"
    table = pd.read_csv("mapped.csv", index_col="cell")
    assert table.columns[0] == "fusionttt_p_value"
    done(scfusionttt("embed new.h5mu --model m2 --out z.npy"))
    np.testing.assert_allclose(table.iloc[:, 1:], np.load("z.npy"), rtol=1e-5)
    done(scfusionttt("map new.h5mu --model m --out mapped.h5mu --batch-key donor"))
    mapped = read("mapped.h5mu")
    assert "fusionttt_p_value" in mapped.obs
    assert mapped.uns["fusionttt_protocol"] == "unsupervised"


@pytest.mark.parametrize("name", ["z.npy", "z.csv", "z.h5mu", "z.h5ad", "z.zarr"])
def test_embed_writes_every_format(name, here, scfusionttt, trained, cells):
    expected = trained.pretrained.embed(cells)
    for _ in range(2):  # the second takes the place of the first
        result = done(scfusionttt(f"embed cells.h5mu --model pretrained --out {name}"))
    assert result.out == ""
    assert result.err.splitlines()[-1] == f"{name}: 160 cells, {expected.shape[1]} dimensions"
    if name == "z.npy":
        found = np.load(name, allow_pickle=False)
    elif name == "z.csv":
        table = pd.read_csv(name, index_col="cell")
        assert list(table.index) == list(cells.obs_names)
        found = table.to_numpy(dtype=np.float32)
    else:
        data = read(name)
        assert isinstance(data, AnnData if name == "z.h5ad" else MuData)
        assert list(data.obs_names) == list(cells.obs_names)
        assert list(data.obs["cell_type"]) == list(cells.obs["cell_type"])
        found = data.obsm["X_fusionttt"]
    np.testing.assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.parametrize("name", ["p.csv", "p.tsv", "p.h5mu", "p.h5ad", "p.zarr"])
def test_impute_writes_every_format(name, here, scfusionttt, trained, cells):
    expected = trained.pretrained.impute(cells)
    for _ in range(2):  # the second replaces the first
        result = done(scfusionttt(f"impute cells.h5mu --model pretrained --out {name}"))
    assert result.err.splitlines()[-1] == f"{name}: 160 cells, 8 proteins"
    if name in ("p.csv", "p.tsv"):
        table = pd.read_csv(name, sep="," if name == "p.csv" else "\t", index_col="cell")
    else:
        table = read(name).obsm["protein_imputed"]
    pd.testing.assert_frame_equal(table, expected, check_names=False, check_dtype=False, rtol=1e-6)


def test_annotate_needs_no_training(here, scfusionttt, trained, rna_cells):
    result = done(scfusionttt("annotate rna.h5ad --reference typed --unknown 0.01"))
    table = pd.read_csv("rna.annotated.csv", index_col="cell")
    assert list(table)[:3] == ["fusionttt_label", "fusionttt_probability", "fusionttt_ontology_id"]
    assert table.shape == (len(rna_cells), 3 + 4 * 8)
    counts = {line.split(maxsplit=1)[1]: int(line.split()[0]) for line in result.out.splitlines()}
    assert counts == table["fusionttt_label"].value_counts().to_dict()
    done(scfusionttt("annotate rna.h5ad --reference typed --unknown 0 --out annotated.h5ad"))
    annotated = read("annotated.h5ad")
    assert set(annotated.obs["fusionttt_label"]) <= set(trained.finetuned.classes)
    assert annotated.obsm["protein_imputed_low"].shape == (len(rna_cells), 8)
    assert "no reference 'lung'" in scfusionttt("annotate rna.h5ad --reference lung").err


def test_references_are_listed_shown_and_built(here, scfusionttt):
    assert done(scfusionttt("reference list")).out.split() == ["pbmc"]
    assert "library_name: scfusionttt" in done(scfusionttt("reference show")).out
    assert "needs INPUT, --labels-key KEY and --out DIR" in scfusionttt("reference build cells.h5mu").err
    brief = "--preset fast --set pretrain.epochs=1"
    result = done(scfusionttt(f"reference build cells.h5mu --labels-key cell_type --out built {brief} --title Toy"))
    assert "macro_f1" in result.out
    assert "# Toy" in done(scfusionttt("reference show built")).out


def test_predict_writes_a_row_per_cell(here, scfusionttt, trained, rna_cells):
    result = done(scfusionttt("predict rna.h5ad --model typed --out types.csv"))
    table = pd.read_csv("types.csv")
    assert list(table) == ["cell", "label", "probability", *trained.finetuned.classes]
    assert list(table["cell"]) == list(rna_cells.obs_names)
    counts = {line.split(maxsplit=1)[1]: int(line.split()[0]) for line in result.out.splitlines()}
    assert counts == table["label"].value_counts().to_dict()
    assert "genes: 300 of the model's 300 matched" in result.err


def test_impute_writes_a_column_per_protein(here, scfusionttt, trained, rna_cells):
    """It was a method without a command."""
    result = done(scfusionttt("impute rna.h5ad --model pretrained --out proteins.csv"))
    table = pd.read_csv("proteins.csv", index_col=0)
    assert list(table.index) == list(rna_cells.obs_names)
    pd.testing.assert_frame_equal(table, trained.pretrained.impute(rna_cells), check_names=False, rtol=1e-5)
    assert f"proteins.csv: {len(table)} cells, {table.shape[1]} proteins" in result.err


def test_impute_writes_intervals_beside_the_values(here, scfusionttt, trained, rna_cells):
    done(scfusionttt("impute rna.h5ad --model typed --out p.csv --intervals --units counts"))
    imputed = trained.finetuned.impute(rna_cells, intervals=True, units="counts")
    table = pd.read_csv("p.csv", index_col="cell")
    assert list(table)[:9] == [*imputed.mean, f"{imputed.mean.columns[0]}_sd"]
    np.testing.assert_allclose(table[imputed.high.columns + "_high"], imputed.high, rtol=1e-5)
    done(scfusionttt("impute rna.h5ad --model typed --out p.h5ad --intervals"))
    assert {"protein_imputed", "protein_imputed_low"} <= set(read("p.h5ad").obsm)


def test_predict_names_no_more_cells_unknown_than_asked_for(here, scfusionttt):
    done(scfusionttt("predict cells.h5mu --model typed --out types.csv --unknown 0.05"))
    table = pd.read_csv("types.csv")
    assert ((table["label"] == "unknown") == (table["p_value"] <= 0.05)).all()
    assert (table["label"] == "unknown").mean() < 0.25


def test_evaluate_scores_a_representation_or_clusters(here, scfusionttt):
    done(scfusionttt("embed cells.h5mu --model typed --out z.h5ad"))
    data = read("z.h5ad")
    data.obs["mine"] = data.obs["cell_type"].astype(str) + "?"
    data.obs.loc[data.obs_names[:9], "cell_type"] = np.nan
    data.obsm["X_mine"] = data.obsm.pop("X_fusionttt")
    data.write_h5ad("z.h5ad")
    result = done(scfusionttt("evaluate z.h5ad --labels cell_type --rep X_mine --space umap"))
    assert result.out.startswith("unsupervised protocol: 151 cells, 3 classes, 9 unlabelled left out")
    clusters = "evaluate z.h5ad --labels cell_type --clusters mine --json ten.json"
    done(scfusionttt(clusters))
    ten = json.loads(Path("ten.json").read_text())["metrics"]
    assert (ten["ARI"], ten["NMI"], ten["SC"]) == (1.0, 1.0, None)
    done(scfusionttt(f"{clusters} --rep X_mine"))
    assert json.loads(Path("ten.json").read_text())["metrics"]["SC"] is not None


def test_labels_is_an_alias_of_labels_key(here, scfusionttt):
    for option in ("--labels", "--labels-key"):
        done(scfusionttt(f"evaluate cells.h5mu {option} cell_type --clusters cell_type"))


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        ("train_fraction and split need labels_key", "--train-fraction and split need --labels-key"),
        ("choose cells='overlap' or cells=\"rna\"", "choose --cells overlap or --cells rna"),
        ("pass drop_empty=True", "pass --drop-empty"),
        ("there is no obs['labels_key'] in my/labels_key.h5ad", "there is no obs['labels_key'] in my/labels_key.h5ad"),
        ("the cells of a layer; set network.seed=3", "the cells of a layer; set network.seed=3"),
    ],
)
def test_messages_of_the_library_name_flags(message, shown):
    assert with_flags(message) == shown


def test_validate_tells_what_is_there(here, scfusionttt):
    result = done(scfusionttt("validate cells.h5mu --json report.json"))
    assert result.out.startswith("cells.h5mu: usable\n160 cells, 300 genes, 9 proteins; ")
    assert result.err == ""
    report = json.loads(Path("report.json").read_text())
    assert report["usable"]
    assert set(report["summary"]["labels"]) == {"cell_type"}


def test_validate_writes_the_quality_of_each_cell(here, scfusionttt, cells):
    result = done(scfusionttt("validate cells.h5mu --out quality.csv --batch-key cell_type"))
    table = pd.read_csv("quality.csv", index_col="cell")
    assert list(table.index) == list(cells.obs_names)
    assert f"quality.csv: {len(table)} cells" in result.err  # it did not say that it wrote a file
    assert {"doublet_score", "predicted_doublet", "low_quality", "reason"} <= set(table)
    assert "low quality: few counts" in result.out
    assert "doublets" not in result.out  # too few cells of each batch to look for them


def test_validate_refuses_batches_if_it_compares_no_cells(here, scfusionttt):
    result = scfusionttt("validate cells.h5mu --batch-key cell_type")
    assert result.code == 2
    assert "--batch-key has no effect without --out" in result.err


def test_background_writes_calls_and_probabilities(here, scfusionttt, cells):
    result = done(scfusionttt("background cells.h5mu --out calls.csv --threshold 0.8"))
    table = pd.read_csv("calls.csv", index_col="cell")
    calls = package.background(cells, threshold=0.8)
    np.testing.assert_array_equal(table[calls.positive.columns], calls.positive)
    np.testing.assert_allclose(table[calls.positive.columns + "_probability"], calls.probability, atol=1e-6)
    assert "calls.csv: 160 cells, 8 proteins" in result.err
    assert all(name in result.out for name in calls.proteins.index)
    for _ in range(2):  # the second replaces the first
        done(scfusionttt("background cells.h5mu --out calls.zarr"))
    assert {"protein_positive", "protein_positive_probability"} <= set(read("calls.zarr").obsm)
    assert scfusionttt("background cells.h5mu --out calls.csv --empty none.h5").code == 2
    refused = scfusionttt("background cells.h5mu --out calls.zarr --empty calls.zarr")
    assert refused.code == 2 and "calls.zarr is the input" in refused.err


def test_denoise_and_differential_write_what_python_gives(here, scfusionttt, trained, cells):
    done(scfusionttt("denoise cells.h5mu --model pretrained --out denoised.h5ad"))
    np.testing.assert_allclose(read("denoised.h5ad").X, trained.pretrained.denoise(cells).X, rtol=1e-5)
    assert scfusionttt("denoise cells.h5mu --model typed --out d.h5ad").code == 2
    result = done(scfusionttt("differential cells.h5mu --groupby cell_type --modality protein --out proteins.csv"))
    table = package.differential(cells, "cell_type", modality="protein")
    assert pd.read_csv("proteins.csv")["names"].tolist() == table["names"].tolist()
    assert f"{table['group'].nunique()} groups" in result.err
    refused = scfusionttt("differential denoised.h5ad --groupby cell_type --out genes.csv")
    assert refused.code == 2 and "not raw counts" in refused.err


def test_genes_shows_where_names_lie(scfusionttt):
    lines = done(scfusionttt("genes CD3E ENSG00000167286.14 CD16_TotalSeqB nonsense")).out.splitlines()
    rows = {line.split()[0]: line.split()[1:] for line in lines if line.strip()}
    assert rows["CD3E"][:4] == ["gene", "CD3E", "ENSG00000198851", "11"]
    assert rows["ENSG00000167286.14"][1] == "CD3D"
    assert rows["CD16_TotalSeqB"][:2] == ["protein", "FCGR3A"]
    assert rows["nonsense"][:3] == ["lost", "-", "-"]
    assert "Cd3e" in done(scfusionttt("genes Cd3e --species mouse")).out


def test_names_that_the_console_lacks_are_escaped(scfusionttt, monkeypatch):
    """As on Windows, where output to a file is in cp1252: a class `γδ T` ended the command with a traceback."""
    console = io.TextIOWrapper(io.BytesIO(), encoding="cp1252")
    monkeypatch.setattr(sys, "stdout", console)
    done(scfusionttt("genes γδ"))
    console.flush()
    assert rb"\u03b3\u03b4" in console.buffer.getvalue()


class Killed(BaseException):
    """What ends a run from outside."""


def test_an_interrupted_run_goes_on(here, scfusionttt, monkeypatch):
    from scfusionttt.training.callbacks import StepSeed

    whole = f"pretrain cells.h5mu {SMALL} --epochs 4"
    done(scfusionttt(f"{whole} --out unbroken"))
    seed_step = StepSeed.on_train_batch_start

    def kill(self, trainer, *rest):
        if trainer.current_epoch == 2:
            raise Killed
        seed_step(self, trainer, *rest)

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(StepSeed, "on_train_batch_start", kill)
        scfusionttt(f"{whole} --out broken")
    assert Path("broken.training").is_dir()
    assert not Path("broken").exists()

    refused = scfusionttt(f"{whole} --out broken")
    assert refused.code == 2
    assert refused.err == (
        "scfusionttt: broken.training is from an interrupted run: continue it with --resume, or remove the folder\n"
    )
    result = done(scfusionttt(f"{whole} --out broken --resume"))
    assert "epoch 3/4" in result.err
    assert "epoch 2/4" not in result.err
    assert not Path("broken.training").exists()
    for out in ("unbroken", "broken"):
        done(scfusionttt(f"embed cells.h5mu --model {out} --out {out}.npy"))
    np.testing.assert_array_equal(np.load("unbroken.npy"), np.load("broken.npy"))
    assert list(FusionTTT.load("broken").history["epoch"]) == [1, 2, 3, 4]


@pytest.mark.parametrize(
    ("command", "function", "hint"),
    [
        ("genes CD3E", "scfusionttt.genome.describe", ""),
        ("validate cells.h5mu", "scfusionttt.data.validate.validate", ""),
        ("embed cells.h5mu --model typed --out z.npy", "scfusionttt.io.read.read", ""),
        ("predict cells.h5mu --model typed --out t.csv", "scfusionttt.io.read.read", ""),
        ("report cells.h5mu --model typed --out r.html", "scfusionttt.io.read.read", ""),
        ("pretrain cells.h5mu --out m", "scfusionttt.io.read.read", ""),
        (
            "benchmark cells.h5mu --labels-key cell_type --methods adt",
            "scfusionttt.io.read.read",
            "; run the same command again to continue",
        ),
    ],
)
def test_ctrl_c_exits_with_130_and_suggests_resume_only_if_the_verb_has_it(
    command, function, hint, here, scfusionttt, monkeypatch
):
    """Every verb suggested --resume, which embed, predict, report and validate do not have."""

    def interrupt(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(function, interrupt)
    result = scfusionttt(command)
    assert result.code == 130
    assert result.err.splitlines()[-1] == f"scfusionttt: interrupted{hint}"


@pytest.mark.parametrize(("epoch", "hint"), [(0, ""), (1, "; continue the run with --resume")])
def test_ctrl_c_suggests_resume_only_if_a_checkpoint_was_saved(epoch, hint, here, scfusionttt, monkeypatch):
    from scfusionttt.training.callbacks import StepSeed

    def interrupt(self, trainer, *rest):
        if trainer.current_epoch == epoch:
            raise KeyboardInterrupt

    command = f"pretrain cells.h5mu {SMALL} --epochs 2 --out stopped"
    with monkeypatch.context() as patch:
        patch.setattr(StepSeed, "on_train_batch_start", interrupt)
        result = scfusionttt(command)
    assert result.code == 130
    assert result.err.splitlines()[-1] == f"scfusionttt: interrupted{hint}"
    if hint:
        assert "stopped.training is from an interrupted run" in scfusionttt(command).err
    else:
        done(scfusionttt(command))
    assert Path("stopped.training").exists() == bool(hint)


def test_the_demo_says_at_once_what_it_does(here, scfusionttt, monkeypatch):
    monkeypatch.setattr("scfusionttt.demo.run_demo", lambda out, show: out / "report.html")
    assert done(scfusionttt("demo")).err.startswith("simulating CITE-seq")


def test_validate_accepts_genes_of_another_species_on_request(here, scfusionttt, rna_cells):
    macaque = rna_cells.copy()
    macaque.var["gene_ids"] = [f"ENSMMUG{i:011d}" for i in range(macaque.n_vars)]
    with quiet():
        macaque.write_h5ad("macaque.h5ad")
    assert "Macaca mulatta" in scfusionttt("validate macaque.h5ad").out
    assert "usable" in done(scfusionttt("validate macaque.h5ad --species human")).out


def test_an_internal_error_is_told_as_one():
    """It is ours to mend, not the user's: exit code 1, with a traceback."""
    code = (
        "import sys, scfusionttt.genome as genome; from scfusionttt.cli import main\n"
        "def fail(*args, **kwargs): raise RuntimeError('a bug')\n"
        "genome.describe, sys.argv = fail, ['scfusionttt', 'genes', 'CD3E']; main()"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert "Traceback" in result.stderr
    assert result.stderr.splitlines()[-1] == "RuntimeError: a bug"


REAL = {
    "pbmc10k.h5mu": "6855 cells, 4000 genes, 14 proteins",
    "malt_subset.h5mu": "2100 cells, 13733 genes, 17 proteins",
    "citefuse_ctcl.h5mu": "500 cells, 19521 genes, 49 proteins",
    "pbmc3k.h5ad": "2700 cells,",
    "sln111_d2_mouse.h5ad": "7564 cells,",
}


@pytest.mark.parametrize("name", REAL)
def test_real_data_are_usable(name, real_data, scfusionttt):
    result = done(scfusionttt(f"validate '{real_data / name}'"))
    assert result.out.splitlines()[0].endswith(f"{name}: usable")
    assert REAL[name] in result.out


def test_a_mosaic_is_refused_until_told_which_cells(real_data, scfusionttt):
    mosaic = f"validate '{real_data / 'mosaic_224adt.h5mu'}'"
    refused = scfusionttt(mosaic)
    assert refused.code == 2
    assert "--cells rna" in refused.err.splitlines()[-1]
    result = done(scfusionttt(f"{mosaic} --cells rna"))
    assert "proteins not measured (NaN)" in result.out
    assert result.err == ""


def test_a_model_is_replaced_only_with_overwrite(here, scfusionttt):
    command = f"pretrain cells.h5mu --out m {SMALL}"
    done(scfusionttt(f"{command} --epochs 2"))
    for more in ("", " --resume"):  # nothing is left to resume
        refused = scfusionttt(f"{command} --epochs 1{more}")
        assert (refused.code, refused.out) == (2, "")
        assert refused.err == (
            "scfusionttt: m is a model already; choose another name, or pass --overwrite to replace it\n"
        )
    assert len(FusionTTT.load("m").history) == 2
    done(scfusionttt(f"{command} --epochs 1 --overwrite"))
    assert len(FusionTTT.load("m").history) == 1
    assert not list(here.glob("*.training"))


def test_two_runs_do_not_write_one_model(here, scfusionttt):
    """Both said "written", and the later one won."""
    with locked(Path("m.training")):
        for more in ("", " --resume"):
            refused = scfusionttt(f"pretrain cells.h5mu --out m {SMALL} --epochs 1{more}")
            assert refused.code == 2
            assert f"m.training is in use by process {os.getpid()} on " in refused.err
    assert not Path("m.training").exists()


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGKILL")
def test_the_lock_of_a_killed_run_blocks_nothing(here, scfusionttt):
    code = (
        "import os, signal; from pathlib import Path; from scfusionttt.cli.lock import locked\n"
        "with locked(Path('m.training')): os.kill(os.getpid(), signal.SIGKILL)"
    )
    subprocess.run([sys.executable, "-c", code], check=False)
    assert (here / "m.training" / "lock").is_file()
    done(scfusionttt(f"pretrain cells.h5mu --out m {SMALL} --epochs 1 --resume"))
    assert not Path("m.training").exists()


def test_embed_leaves_its_input_alone(here, scfusionttt, trained):
    before = (here / "cells.h5mu").read_bytes()
    result = scfusionttt("embed cells.h5mu --model pretrained --out ./cells.h5mu --cells overlap")
    assert result.code == 2
    assert "is the input; choose another name for --out" in result.err
    assert (here / "cells.h5mu").read_bytes() == before


def test_pretrain_leaves_a_folder_of_data_alone(here, scfusionttt, cells):
    """A Zarr store had been replaced by the model that was learned from it."""
    with quiet():
        cells.write_zarr("cells.zarr")
    result = scfusionttt("pretrain cells.zarr --out cells.zarr")
    assert result.code == 2
    assert "not overwritten" in result.err
    assert (here / "cells.zarr" / "mod").is_dir()


def test_a_model_can_be_written_here(here, scfusionttt, monkeypatch):
    """The present folder has no name of its own to call the run's state by."""
    (here / "new").mkdir()
    monkeypatch.chdir(here / "new")
    done(scfusionttt(f"pretrain ../cells.h5mu --out . {SMALL} --epochs 1"))
    assert (here / "new" / "manifest.json").is_file()


def test_benchmark_of_imputation_and_of_transfer(here, scfusionttt):
    brief = "--seeds 1 --set pretrain.epochs=1 --set network.width=16"
    error = scfusionttt(f"benchmark cells.h5mu --task impute --out b {brief}").err
    assert "needs a data set to learn from and a query, or --batch-key" in error
    assert "needs --labels-key" in scfusionttt(f"benchmark cells.h5mu rna.h5ad --task transfer --out b {brief}").err
    Path("map.csv").write_text("label,class\nnone,none\n")
    result = done(
        scfusionttt(
            "benchmark cells.h5mu rna.h5ad --task transfer --labels-key cell_type --label-map map.csv --out b "
            f"--methods logistic_own_scale --train-fractions 0.3 {brief}"
        )
    )
    assert "zero-shot" in result.out
    assert "held-out" in Path("b/results.md").read_text()
    done(scfusionttt(f"benchmark cells.h5mu cells.h5mu --task impute --methods ridge,knn --out b2 {brief}"))
    assert "imputation" in Path("b2/results.md").read_text()


def test_names_in_tables_are_no_markup(capsys):
    """`NK [activated]` was printed as `NK`, and `NK [/CD56]` ended fine-tuning with a traceback."""
    names = ["NK [activated]", "NK [/CD56]", "[bold]B", ":cat:"]
    print_table("", pd.DataFrame({"f1 [macro]": 0.5, "type": names}, index=pd.Index(names, name="[/class]")))
    header, _, *rows = map(str.strip, capsys.readouterr().out.strip().splitlines())
    assert header.split("  ")[0] == "[/class]" and "f1 [macro]" in header
    for name, row in zip(names, rows, strict=True):
        assert row.startswith(name) and row.endswith(name)


def test_scores_are_written_before_they_are_printed(tmp_path, monkeypatch):
    monkeypatch.setattr(common, "print_table", lambda *_: pytest.fail("stop"))
    scores = {"n_cells": 2, "metrics": {"accuracy": 1.0, "ece": 0.0}, "per_class": {"B": {"f1": 1.0}}}
    with pytest.raises(pytest.fail.Exception, match="stop"):
        common.report_held_out(scores, tmp_path / "scores.json")
    assert json.loads((tmp_path / "scores.json").read_text()) == scores


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_a_signal_that_compiled_code_swallows_is_sent_again(monkeypatch):
    """SIGTERM in a callback of Numba's compiler was printed and lost: the command ran on."""
    monkeypatch.setattr(sys, "unraisablehook", cli._send_again)
    before = signal.signal(signal.SIGTERM, cli._terminate)
    callback = ctypes.CFUNCTYPE(None)(lambda: signal.raise_signal(signal.SIGTERM))
    try:
        with pytest.raises(cli.Stopped):
            callback()
            time.sleep(60)
    finally:
        signal.signal(signal.SIGTERM, before)
