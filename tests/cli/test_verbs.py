import io
import json
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import typer
from anndata import AnnData
from mudata import MuData

import scfusionttt as package
from command_line import SMALL, done
from scfusionttt.cli import app, common
from scfusionttt.cli.common import print_table
from scfusionttt.cli.flags import with_flags
from scfusionttt.io.quiet_warnings import quiet
from scfusionttt.io.read import read
from scfusionttt.model.fusionttt import FusionTTT


def test_version_and_help(scfusionttt):
    assert done(scfusionttt("--version")).out == version("scfusionttt") + "\n"
    assert "pretrain" in done(scfusionttt("--help")).out
    assert scfusionttt("").code == 2


@pytest.mark.parametrize("verb", typer.main.get_command(app).commands)
def test_every_verb_has_an_example(verb, scfusionttt):
    text = " ".join(done(scfusionttt(f"{verb} --help")).out.split())
    assert f"Usage: scfusionttt {verb}" in text
    assert f"Example: scfusionttt {verb}" in text


@pytest.mark.parametrize("verb", typer.main.get_command(app).commands.values(), ids=lambda verb: verb.name)
def test_help_is_wrapped_by_the_terminal(verb):
    """Lines kept the breaks of the source, at 120 columns, and narrower terminals broke each of them once more."""
    for paragraph in verb.help.split("\n\n"):
        assert all(line.startswith("Example: ") for line in paragraph.splitlines()[1:])


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
    pd.testing.assert_frame_equal(
        table, expected, check_names=False, check_dtype=False, check_column_type=False, rtol=1e-6
    )


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
    assert "need a representation: give --rep KEY, too" in done(scfusionttt(clusters)).out
    ten = json.loads(Path("ten.json").read_text())["metrics"]
    assert (ten["ARI"], ten["NMI"], ten["SC"]) == (1.0, 1.0, None)
    assert "--rep" not in done(scfusionttt(f"{clusters} --rep X_mine")).out
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
    assert f"{table['pvals_adj'].min():.2g}" in result.out  # it was 0.000
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


def test_the_demo_says_at_once_what_it_does(here, scfusionttt, monkeypatch):
    monkeypatch.setattr("scfusionttt.demo.run_demo", lambda out, show: out / "report.html")
    assert done(scfusionttt("demo")).err.startswith("simulating CITE-seq")


def test_names_of_genes_may_follow_a_space(here, scfusionttt, monkeypatch):
    """A space after the comma was part of the name, so that the model did not know the gene."""
    seen = []
    monkeypatch.setattr(
        "scfusionttt.report.write_report", lambda _, cite, out, *, genes, **__: (seen.extend(genes), out.touch())
    )
    done(scfusionttt("report cells.h5mu --model typed --genes 'CD3E, MS4A1' --out r.html"))
    assert seen == ["CD3E", "MS4A1"]


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


def test_a_mosaic_is_refused_until_told_which_cells(real_data, scfusionttt):
    mosaic = f"validate '{real_data / 'mosaic_224adt.h5mu'}'"
    refused = scfusionttt(mosaic)
    assert refused.code == 2
    assert "--cells rna" in refused.err.splitlines()[-1]
    result = done(scfusionttt(f"{mosaic} --cells rna"))
    assert "proteins not measured (NaN)" in result.out
    assert result.err == ""


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
