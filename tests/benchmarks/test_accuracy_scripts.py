"""The accuracy scripts split and score cells as documented."""

import numpy as np
import pandas as pd
import pytest

from benchmarks import batches, coregulation, differential, noise_filter, order, unknown
from scfusionttt.comparison.cells import Cells
from scfusionttt.data.assemble import as_citeseq
from scfusionttt.labels import usable_labels
from scfusionttt.simulation.simulate import simulate


def test_a_class_left_out_is_neither_trained_on_nor_known():
    cite = as_citeseq(simulate(60, 80, 4, 3))
    codes, _ = usable_labels(cite.obs, "cell_type")
    cells, held_out = unknown.without(cite, codes, 1, 0.75, seed=0)
    learned = (cells.obs[unknown.SPLIT] == "train").to_numpy()
    assert not (learned & (codes == 1)).any()
    assert (cells.obs[unknown.KNOWN][codes == 1] == "unknown").all()
    assert not (codes[held_out] == 1).any()
    assert not learned[held_out].any()
    assert unknown.KNOWN not in cite.obs


def test_distances_are_computed_for_held_out_and_new_cells_only():
    cite, asked = as_citeseq(simulate(30, 80, 4, 3)), []

    class Model:
        config = unknown.preset("default")

        def finetune(self, cells, **settings):
            pass

        def predict(self, cells, *, unknown):
            asked.append((cells.protein is None, list(cells.obs.index)))
            new = np.arange(cells.rna.n_obs) >= 5
            return pd.DataFrame({"p_value": np.where(new, 0.0, 0.5), "probability": np.where(new, 0.9, 0.6)})

    new = np.arange(30) >= 25
    scores = unknown.score(Model(), cite, np.arange(5), new)
    names = [*cite.obs.index[:5], *cite.obs.index[25:]]
    assert asked == [(False, names), (True, names)]
    assert scores == {"distance": 1, "softmax": 0, "distance, RNA alone": 1, "softmax, RNA alone": 0}


def test_separate_batches_score_higher_than_mixed_ones():
    rng, batch = np.random.default_rng(0), np.array(["b1", "b2", "b3"])[np.arange(600) % 3]
    label = np.where(np.arange(600) < 300, "T", "B")
    label[(batch == "b2") & (np.arange(600) % 2 == 0)] = "alone"
    z = rng.normal(size=(600, 2)) + 50 * pd.factorize(label)[0][:, None]
    mixed = batches.mixing(z, label, batch)
    assert mixed["own batch"] == pytest.approx(1, abs=0.1)
    assert mixed["purity"] == mixed["kNN"] == 1
    apart = batches.mixing(z + 1000 * pd.factorize(batch)[0][:, None], label, batch)
    assert apart["own batch"] > 1.9
    assert mixed["iLISI"] > 1.8 and apart["iLISI"] == pytest.approx(1)


def test_clusters_of_all_cells_tell_whether_a_type_of_two_batches_is_one():
    cite = as_citeseq(simulate(120, 60, 4, 2, n_batches=2, seed=0))
    cells = Cells("cohort", cite, "cell_type", "batch")
    codes, _ = usable_labels(cite.obs, "cell_type")
    z = np.random.default_rng(0).normal(size=(120, 2)) + 50 * codes[:, None]
    apart = batches.scores(z + [0, 1000] * (cells.batches == "batch 1")[:, None], cells)
    assert apart["ARI"] == 1 and apart["joint ARI"] < 0.6


def test_unknown_proteins_are_left_out_of_the_query_alone():
    cite = as_citeseq(simulate(60, 60, 10, 2, seed=0))
    partial = batches._without_proteins(cite, 0.3, seed=0)
    assert partial.protein.n_vars == 7 and cite.protein.n_vars == 10
    assert set(partial.protein.var_names) < set(cite.protein.var_names)


def test_the_control_compares_orders_on_the_same_simulation(tmp_path):
    todo = [job.inputs for job in order.jobs([0.0, 0.8], range(2), tmp_path)]
    assert [(row["seed"], row["dataset"]) for row in todo[:: len(order.MIXERS) * 2]] == [
        (0, "strength 0"), (0, "strength 0.8"), (1, "strength 0"), (1, "strength 0.8"),
    ]  # fmt: skip
    assert {row["method"] for row in todo} == {order._name(m, o) for m in order.MIXERS for o in order.ORDERS}
    names = [set(order.simulated(*pair).cite.rna.var_names) for pair in ((0.0, 0), (0.8, 0), (0.8, 1))]
    assert names[0] == names[1] != names[2]
    rows = [
        {**row, "status": "done", "note": "", "seconds": 1.0, "peak_memory": None,
         "metrics": {order.METRIC: 0.1 * ("genome" in row["method"]) + 0.01 * row["seed"]}}
        for row in todo
    ]  # fmt: skip
    found = order.differences(rows)
    assert found["difference"].tolist() == [-0.1] * 4
    assert found["strength"].tolist() == [0, 0.8, 0, 0.8]
    order.draw(rows, tmp_path / "figure.png")
    assert (tmp_path / "figure.png").stat().st_size > 5000


def test_the_coregulation_of_a_simulation_is_found_whatever_the_depth():
    for strength in (0, 0.8):
        for depth in (1.5, 5.0):
            cite = as_citeseq(simulate(900, 400, 6, 3, depth=depth, coregulation=strength, seed=1))
            found = coregulation.coregulation(Cells("simulated", cite, "cell_type"), seed=0)
            assert abs(found["excess"] - np.expm1(strength**2)) < 0.2 * np.expm1(strength**2) + 5 * found["noise"]


def test_tests_that_take_cells_for_replicates_are_seen_to_be_wrong(monkeypatch):
    monkeypatch.setattr(differential, "REPLICATES", {"cells": None})
    mdata = differential.donors(0.5, seed=0)
    assert mdata.obs.groupby("batch", observed=True)["condition"].nunique().eq(1).all()
    assert mdata.obs.groupby("condition", observed=True)["batch"].nunique().tolist() == [4, 4]
    _, proteins = differential.tested(mdata, seed=0)
    assert proteins["p < 0.01"] > 0.1
    _, proteins = differential.tested(differential.donors(0, seed=0), seed=0)
    assert proteins["p < 0.01"] <= 0.1


def test_the_filter_is_all_that_differs_within_a_pair(cells):
    small = {"network.width": 16, "network.encoder_blocks": 1, "pretrain.epochs": 1}
    with_filter, without = noise_filter.pair(Cells("simulated", as_citeseq(cells), "cell_type"), 0, small)
    assert (with_filter["filter"], without["filter"]) == (True, False)
    assert with_filter["split_gene_r"] != without["split_gene_r"]
    assert with_filter["gene_r"] == pytest.approx(without["gene_r"], abs=0.05)


def test_differences_of_the_filter_are_paired():
    scores = {"cells": ["a", "a", "b", "b"], "seed": 0, "filter": [True, False] * 2, "kNN": [0.9, 0.8, 0.5, 0.6]}
    line = noise_filter.differences(pd.DataFrame(scores)).loc["kNN"]
    assert (line["difference"], line["better"], line["worse"]) == (0, 1, 1)
