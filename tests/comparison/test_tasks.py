"""What each protocol trains on, and what it scores."""

import json
from dataclasses import replace
from functools import partial

import numpy as np
import pandas as pd
import pytest

import scfusionttt
from comparison_runs import TINY, run
from scfusionttt.comparison import linear_baselines, results
from scfusionttt.comparison.cells import Cells
from scfusionttt.comparison.methods import Method, choose
from scfusionttt.comparison.tasks import tasks
from scfusionttt.data.assemble import as_citeseq
from scfusionttt.errors import SettingError
from scfusionttt.evaluation import evaluate_as_published
from scfusionttt.evaluation.baselines import zscore


def test_each_protocol_has_its_own_table(dataset, tmp_path):
    trained = TINY | {"finetune.classifier": "finetune", "finetune.epochs": 1}
    methods = choose(["fast", "fast_rna", "concat", "logistic"], models=tmp_path / "models", settings=trained)
    rows, _ = run(dataset, methods, tasks(["unsupervised", "held-out", "paper"], [0.5]), tmp_path)
    assert {row["status"] for row in rows} == {"done"}, [row["note"] for row in rows]
    by_protocol = {table.protocol: set(table.rows.index) for table in results.tables(rows)}
    assert by_protocol == {
        "unsupervised": {"fast", "concat"}, "held-out": {"fast", "fast_rna", "logistic"},
        "paper": {"fast", "fast_rna", "concat"},
    }  # fmt: skip
    assert len(list((tmp_path / "models").glob("*/manifest.json"))) == 1  # one pretraining for all rows of a seed
    held_out = next(row for row in rows if row["method"] == "fast" and row["protocol"] == "held-out")
    assert {"accuracy", "macro_f1", "ARI", "NMI", "ece"} <= set(held_out["metrics"])
    assert held_out["n_cells"] == 80
    assert held_out["seconds"] > 0 and "torch" in held_out["versions"]

    files = results.write(rows, tmp_path)
    assert [path.name for path in files][:3] == ["results.json", "results.csv", "results.md"]
    assert all(path.stat().st_size for path in files) and len(files) == 6
    assert json.loads(files[0].read_text())["rows"] == rows
    assert set(pd.read_csv(files[1])["protocol"]) == set(by_protocol)


def test_the_published_protocol_has_its_own_share_and_resolution(dataset, tmp_path):
    """A head that leaves the network as it is would repeat the unsupervised row."""
    asked = []

    def represent(cells, train, seed):
        asked.append(len(train))
        return zscore(cells.protein)

    todo = tasks(["paper"], [0.75])
    rows, shown = run(dataset, [Method(name="mine", represent_trained=represent)], todo, tmp_path)
    assert asked == [48] and todo[0].share == 0.3  # of 160 cells
    row = rows[0]
    again = evaluate_as_published(zscore(dataset.protein), dataset.labels)
    assert row["metrics"]["DBI"] == pytest.approx(again.mean["DBI"])
    assert row["n_clusters"] == list(again.n_clusters)
    assert again.protocol == "paper" and again.space == "umap"
    rows, shown = run(dataset, choose(["fast"], models=tmp_path, settings=TINY), todo, tmp_path / "kernel")
    assert rows[0]["status"] == "not applicable" and "finetune.classifier=finetune" in shown[0]


def test_count_splitting_finds_what_is_missing_and_what_is_noise(tmp_path):
    """Of the same half, neighbours by the right number of components agree best in the other half."""
    dataset = Cells("sim", as_citeseq(scfusionttt.simulate(300, 200, 12, 5, seed=2)), "cell_type")

    def with_noise(cells, seed, n):
        noise = np.random.default_rng(seed).normal(size=(cells.cite.rna.n_obs, n))
        return np.hstack([linear_baselines.rna_pca(cells, seed)[:, :4], noise])

    noisy = [Method(name=f"noise {n}", represent=partial(with_noise, n=n), needs_protein=False) for n in (0, 10, 100)]
    one = Method(name="one", represent=lambda cells, seed: linear_baselines.rna_pca(cells, seed)[:, :1])
    rows, _ = run(dataset, [*noisy, one], tasks(["count-splitting"], [0.5]), tmp_path)
    found = {row["method"]: row["metrics"] for row in rows}
    for metric in ("split_gene_r", "split_protein_r", "split_protein_ridge_r"):
        score = {name: metrics[metric] for name, metrics in found.items()}
        assert score["noise 0"] > score["noise 10"] > score["noise 100"] and score["noise 0"] > score["one"] + 0.02, (
            score
        )


def test_only_the_other_half_tells_values_of_genes_from_their_noise(tmp_path):
    """Random sums of genes predict genes of the same counts, whose noise they keep, and hardly of the other half."""
    dataset = Cells("sim", as_citeseq(scfusionttt.simulate(400, 200, 12, 5, seed=2)), "cell_type")

    def with_sums(cells, seed, n):
        genes = cells.rna.toarray()
        sums = genes @ np.random.default_rng(seed).normal(size=(genes.shape[1], n))
        return np.hstack([linear_baselines.rna_pca(cells, seed)[:, :10], sums])

    methods = [Method(name=str(n), represent=partial(with_sums, n=n), needs_protein=False) for n in (0, 30)]
    rows, _ = run(dataset, methods, tasks(["unsupervised", "count-splitting"], [0.5]), tmp_path)
    metrics = {(row["protocol"], row["method"]): row["metrics"] for row in rows}
    gain = {
        (protocol, name): metrics[protocol, "30"][name] - metrics[protocol, "0"][name]
        for protocol, name in (("unsupervised", "gene_r"), ("count-splitting", "split_gene_ridge_r"))
    }
    assert gain["unsupervised", "gene_r"] > 0.08 and abs(gain["count-splitting", "split_gene_ridge_r"]) < 0.02


@pytest.mark.parametrize("objective", ["bottleneck", "masked"])
def test_an_ablation_scores_cells_that_the_model_never_saw(dataset, tmp_path, objective):
    settings = TINY | {"pretrain.objective": objective}
    if objective == "masked":
        settings |= {"network.latent": 0, "network.decoder_blocks": 1}
    rows, _ = run(dataset, choose(["fast"], models=tmp_path, settings=settings), tasks(["ablation"], [0.2]), tmp_path)
    assert rows[0]["status"] == "done", rows[0]["note"]
    assert {"ARI", "hidden_gene_r2", "hidden_protein_r2", "protein_from_rna_r", "few_labels_f1"} <= set(
        rows[0]["metrics"]
    )
    assert not list(tmp_path.glob("*/manifest.json"))  # a model of all cells would have seen them


def test_methods_get_the_batches_and_mixing_is_scored(cohort, tmp_path, monkeypatch):
    """Scores of scib-metrics stand in where it is not installed."""
    scored = []

    def scores(x_nd, labels, batches, *, before):
        scored.append((len(x_nd), len(np.unique(batches)), before.shape))
        return {"iLISI": 0.5, "cLISI": 1.0}

    monkeypatch.setattr("scfusionttt.comparison.tasks.integration_scores", scores)
    methods = choose(["fast", "concat", "concat_harmony"], models=tmp_path / "models", settings=TINY)
    rows, _ = run(cohort, methods, tasks(["unsupervised"], [0.5]), tmp_path)
    assert {row["status"] for row in rows} == {"done"}, [row["note"] for row in rows]
    assert scored == [(160, 2, (160, 50))] * 3
    assert {"biology", "batch", "total"} <= set(rows[0]["metrics"])
    (folder,) = (tmp_path / "models").glob("*/manifest.json")
    assert list(json.loads(folder.read_text())["batches"]["levels"]) == ["batch"]
    assert "scIB total ↑" in results.markdown(rows)


def test_methods_that_can_are_compared_on_cells_of_one_modality(mosaic, tmp_path, monkeypatch):
    """A file with such cells was refused, so that no method could be compared with ours on them."""
    seen = []
    monkeypatch.setattr(
        "scfusionttt.comparison.tasks.integration_scores",
        lambda *_, before: seen.append(before) or {"iLISI": 0.5, "cLISI": 1.0},
    )
    methods = choose(["fast", "fast_rna", "concat", "rna_pca", "logistic"], models=tmp_path / "models", settings=TINY)
    todo = tasks(["unsupervised", "held-out", "count-splitting", "ablation"], [0.5])
    rows, _ = run(mosaic, methods, todo, tmp_path)
    done = {(row["protocol"], row["method"]): row["metrics"] for row in rows if row["status"] == "done"}
    assert set(done) == {("unsupervised", "fast"), ("held-out", "fast")}, [row["note"] for row in rows]
    assert {"ARI", "kNN", "iLISI"} <= set(done["unsupervised", "fast"]) and seen == [None]
    assert not {"gene_r", "protein_r"} & set(done["unsupervised", "fast"])
    notes = {(row["protocol"], row["method"]): row["note"] for row in rows}
    assert notes["unsupervised", "concat"].startswith("some cells lack RNA and proteins; leave them out with")
    assert notes["unsupervised", "rna_pca"] == notes["held-out", "fast_rna"] == notes["ablation", "fast"]
    assert notes["ablation", "fast"].startswith("some cells lack RNA; ")
    assert notes["count-splitting", "fast"] == notes["unsupervised", "concat"]


def test_a_method_without_masks_is_told_of_proteins_that_some_cells_lack(mosaic, tmp_path):
    """It said that these cells lack proteins, and to leave them out with cells='overlap', which keeps them."""
    cite = mosaic.cite[mosaic.batches == "batch 1"]
    cite.protein.X[::4, 0] = np.nan
    todo = tasks(["unsupervised"], [0.5])
    cells = replace(mosaic, cite=cite, batch_key=None)
    (row,), _ = run(cells, choose(["concat"], models=tmp_path), todo, tmp_path)
    assert row["note"] == "some cells lack some of the proteins; leave out these proteins"


def test_unknown_protocols_and_shares_are_refused():
    with pytest.raises(SettingError, match="no protocol 'zero'"):
        tasks(["zero"], [0.5])
    with pytest.raises(SettingError, match="between 0 and 1"):
        tasks(["held-out"], [1.5])
