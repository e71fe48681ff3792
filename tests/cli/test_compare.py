"""The commands benchmark and ablate."""

from pathlib import Path

from command_line import done
from comparison_runs import TINY
from scfusionttt.comparison.rows import read_rows
from scfusionttt.io.quiet_warnings import quiet
from scfusionttt.simulation.simulate import simulate


def test_benchmark_of_embeddings_and_of_labels(here, scfusionttt):
    options = "--labels cell_type --methods adt,logistic --seeds 2 --shares 0.5"
    result = done(scfusionttt(f"benchmark cells.h5mu {options} --out b"))
    assert "[4/4] cells held-out 0.5 logistic seed 1: ARI" in result.out
    assert Path("b/results.md").read_text().count("## ") == 2
    assert scfusionttt("benchmark cells.h5mu --labels nothing --methods adt --out c").code == 2


def test_ablation_of_the_stages(here, scfusionttt):
    tiny = " ".join(f"--set {name}={value}" for name, value in TINY.items())
    options = f"--labels cell_type --seeds 1 --shares 0.5 --preset fast {tiny}"
    result = done(scfusionttt(f"ablate stages cells.h5mu {options} --out a"))
    assert "not pretrained, fine-tuned for as long as pretraining" in result.out
    assert "failed" not in Path("a/results.json").read_text()
    assert "no input given" in scfusionttt("ablate order --labels cell_type").err


def test_data_sets_of_one_name_are_told_apart_by_their_folders(scfusionttt, tmp_path, monkeypatch):
    """`benchmark A/pbmc.h5mu B/pbmc.h5mu` refused them, and as reference and query they were "pbmc to pbmc"."""
    monkeypatch.chdir(tmp_path)
    for seed, folder in enumerate("AB"):
        (tmp_path / folder).mkdir()
        with quiet():
            simulate(60, 60, 4, 2, seed=seed).write(tmp_path / folder / "pbmc.h5mu")
    both, brief = "benchmark A/pbmc.h5mu B/pbmc.h5mu", "--seeds 1 --train-fractions 0.5 --labels-key cell_type"
    assert scfusionttt(f"{both} --methods logistic --out b {brief}").code == 0
    assert {row["dataset"] for row in read_rows(tmp_path / "b" / "rows")} == {"A", "B"}
    assert scfusionttt(f"{both} --task transfer --methods logistic_own_scale --out t {brief}").code == 0
    assert {row["dataset"] for row in read_rows(tmp_path / "t" / "rows")} == {"A to B"}
    assert "same name (pbmc, pbmc)" in scfusionttt(f"benchmark A/pbmc.h5mu A/pbmc.h5mu --out b {brief}").err


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
