import json
from dataclasses import replace
from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import sparse

import scfusionttt
from scfusionttt.comparison import autoencoder, fingerprints, linear_baselines, results
from scfusionttt.comparison.ablations import Variants, protocol_of
from scfusionttt.comparison.cells import Cells, fingerprint
from scfusionttt.comparison.methods import Method, choose
from scfusionttt.comparison.pairs import paired, paired_tables
from scfusionttt.comparison.ranks import rank_tables
from scfusionttt.comparison.reconstruction import _parts, reconstruction_scores
from scfusionttt.comparison.rows import comparable, read_rows, run_all
from scfusionttt.comparison.tasks import jobs, tasks
from scfusionttt.config import preset
from scfusionttt.data.assemble import as_citeseq
from scfusionttt.errors import LabelError, SettingError
from scfusionttt.evaluation import evaluate_as_published
from scfusionttt.evaluation.baselines import zscore
from scfusionttt.io.quiet_warnings import quiet
from scfusionttt.labels import usable_labels
from scfusionttt.model.fusionttt import FusionTTT
from scfusionttt.simulation.simulate import simulate

TINY = {"network.width": 16, "network.latent": 8, "pretrain.epochs": 1}
TINY_SECTIONS = {"network": {"width": 16, "latent": 8}}


@pytest.fixture(scope="module")
def dataset(cells):
    return Cells("sim", as_citeseq(cells), "cell_type")


def run(dataset, methods, todo, folder, seeds=(0,)):
    shown = []
    run_all(jobs([dataset], methods, todo, seeds), folder / "rows", show=shown.append)
    return read_rows(folder / "rows"), shown


def test_a_class_of_one_cell_is_left_out(cells, caplog):
    """The whole data set was refused for it."""
    cite = as_citeseq(cells)
    names = cite.obs["cell_type"].astype(str).to_numpy(object)
    names[:3] = "a lonely one", "unknown", "the last one"
    with caplog.at_level("INFO", "scfusionttt"):
        left = Cells("sim", replace(cite, obs=cite.obs.assign(cell_type=names)), "cell_type")
        assert left.classes.tolist() == sorted(set(names[3:]))
    assert caplog.messages == ["sim: classes with only one cell are left out: a lonely one, the last one"]
    assert left.codes[:3].tolist() == [-1, -1, -1]
    assert (left.labels[3:] == names[3:]).all()
    # rows of our model failed, since it refuses to learn such a class
    codes, classes = usable_labels(left.with_split(np.arange(3, 60)).obs, "cell_type")
    np.testing.assert_array_equal(codes, left.codes)
    assert classes == left.classes.tolist()
    names[3:] = "the same"
    with pytest.raises(LabelError, match="only one cell"):
        _ = Cells("sim", replace(cite, obs=cite.obs.assign(cell_type=names)), "cell_type").codes


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


def test_the_halves_of_the_counts_add_up_and_differ_like_two_samples(dataset):
    first, second = dataset.halves(3)
    for modality in ("rna", "protein"):
        whole, one, other = (
            np.asarray(sparse.csr_array(getattr(cells.cite, modality).X).todense())
            for cells in (dataset, first, second)
        )
        np.testing.assert_array_equal(one + other, whole)
        assert (one >= 0).all() and (other >= 0).all()
        counts, halves = whole[whole > 0], one[whole > 0]
        # A half of c counts is binomial: of mean c / 2 and variance c / 4.
        assert np.mean((2 * halves - counts) ** 2 / counts) == pytest.approx(1, abs=5 * (2 / len(counts)) ** 0.5)
    assert not np.array_equal(first.cite.rna.X.data, dataset.halves(4)[0].cite.rna.X.data)


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


def test_labels_of_held_out_cells_are_not_used(dataset, tmp_path):
    """Changing the labels of held-out cells changes no prediction."""
    train = np.arange(0, 160, 2)
    obs = dataset.cite.obs.copy()
    held_out = np.arange(1, 160, 2)
    names = obs["cell_type"].astype(str).to_numpy()
    names[held_out] = np.roll(names[held_out], 7)
    other = Cells("sim", replace(dataset.cite, obs=obs.assign(cell_type=names)), "cell_type")
    for method in choose(["logistic", "logistic_rna"], models=tmp_path):
        shown = [method.classify(cells, train, 0) for cells in (dataset, other)]
        pd.testing.assert_frame_equal(*shown)


def test_rows_are_computed_once(dataset, tmp_path):
    calls = []

    def represent(cells, seed):
        calls.append(seed)
        return zscore(cells.protein) * (1 + seed)

    todo = tasks(["unsupervised"], [0.5])
    method = Method(name="mine", represent=represent, settings={"a": 1})
    rows, _ = run(dataset, [method], todo, tmp_path, seeds=(0, 1))
    again, shown = run(dataset, [method], todo, tmp_path, seeds=(0, 1, 2))
    assert calls == [0, 1, 2]
    assert again[:2] == rows and shown[0].endswith("(already computed)") and not shown[2].endswith("(already computed)")
    run(dataset, [replace(method, settings={"a": 2})], todo, tmp_path)
    assert calls == [0, 1, 2, 0]  # a row with other settings is not reused


def test_rows_of_other_code_are_computed_again(dataset, tmp_path, monkeypatch):
    """A change of the code had left the rows of the old code in place, mixed with those of the new."""
    calls = []

    def represent(cells, seed):
        calls.append(seed)
        return zscore(cells.protein)

    method = Method(name="mine", represent=represent)
    todo = tasks(["unsupervised"], [0.5])
    run(dataset, [method, replace(method, name="old")], todo, tmp_path)
    monkeypatch.setattr("scfusionttt.comparison.rows.code_version", lambda: "0.0.0+changed")
    rows, shown = run(dataset, [method], todo, tmp_path)
    assert len(calls) == 3 and not shown[0].endswith("(already computed)")
    assert "computed with 2 versions of the code" in results.tables(rows)[0].notes


def test_changed_counts_are_other_cells(cells):
    """Rows and pretrained models of a file were reused after its columns were corrected, since only sums were read."""

    def changed(change):
        cite = as_citeseq(cells)
        change(cite.rna, cite.protein)
        return fingerprint(cite)

    def permute(rna, protein):
        rna.X = rna.X[:, np.random.default_rng(0).permutation(rna.n_vars)]

    def correct(rna, protein):  # the sum of the cell is NaN before and after
        protein.X[0, 0] = np.nan
        protein.X[0, 1] += 1

    def lack(rna, protein):
        protein.X[0, 0] = np.nan

    def store_otherwise(rna, protein):
        """Keep the same counts in columns that are not sorted, as two addends and with zeros."""
        counts = rna.X.tocoo()
        one = np.arange(counts.nnz) % 2
        data = np.concatenate([counts.data, one, -one], dtype=np.float32)
        row, column = (np.tile(places, 3)[::-1] for places in (counts.row, counts.col))
        order = np.argsort(row, kind="stable")
        indptr = np.append(0, np.cumsum(np.bincount(row, minlength=rna.n_obs)))
        rna.X = sparse.csr_matrix((data[::-1][order], column[order], indptr), shape=rna.shape)

    assert len({changed(each) for each in (lambda *_: None, permute, correct, lack)}) == 4
    assert changed(store_otherwise) == fingerprint(as_citeseq(cells))


def test_rows_of_other_data_are_left_out_of_the_tables(dataset, tmp_path, caplog):
    """Rows with more seeds of an earlier version of the file, or of other settings, were averaged with the new ones."""
    todo = tasks(["unsupervised"], [0.5])
    mine, other = (Method(name=name, represent=lambda cells, seed: zscore(cells.protein)) for name in ("mine", "other"))
    tuned, elsewhere = replace(mine, settings={"a": 1}), replace(dataset, name="elsewhere")
    run(dataset, [mine, other], todo, tmp_path, seeds=(0, 1, 2))
    rows, _ = run(elsewhere, [other], todo, tmp_path)

    def kept(cells, method):
        planned = jobs([cells], [method], todo, (0,))
        return [(row["method"], row["dataset"], row["seed"]) for row in comparable(rows, planned)]

    others = [("other", "elsewhere", 0), *(("other", "sim", seed) for seed in range(3))]
    with caplog.at_level("INFO", "scfusionttt"):
        assert len(kept(dataset, mine)) == 7 and not caplog.messages
        assert kept(dataset, tuned) == others
        fewer = replace(dataset, cite=dataset.cite[np.arange(160) > 0])
        assert kept(fewer, other) == others[:1]
        assert "versions of the cells" not in results.tables(rows)[1].notes
        mixed = [row | {"cells": row["seed"]} for row in rows]  # as of a data set that is not compared this time
        assert "computed with 3 versions of the cells" in results.tables(mixed)[1].notes
    message = "rows of other cells, batches or settings are left out of the tables: mine on sim"
    assert caplog.messages == [message, f"{message}, other on sim"]


def test_the_code_version_depends_on_what_computes_results(tmp_path, monkeypatch):
    for name in ("nn/layers.py", "genome/table.tsv", "report/page.py"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text("old")
    monkeypatch.setattr(fingerprints, "_PACKAGE", tmp_path)
    version = fingerprints.code_version.__wrapped__
    before = version()
    (tmp_path / "report/page.py").write_text("new")
    assert version() == before
    (tmp_path / "nn/layers.py").write_text("new")
    assert version() not in (before, None)
    assert before.startswith(f"{scfusionttt.__version__}+")


def test_another_order_in_the_same_file_is_another_row(dataset, tmp_path):
    """Editing the order file had left the rows and the pretrained models of the old order in use."""
    order = tmp_path / "order.txt"
    order.write_text("\n".join(dataset.cite.rna.var_names))
    settings = TINY | {"data.order": "list", "data.order_file": str(order)}
    identities, folders = [], []
    for _ in range(2):
        method = choose(["fast"], models=tmp_path / "models", settings=settings)[0]
        identities.append(jobs([dataset], [method], tasks(["unsupervised"], [0.5]), [0])[0].identity)
        method.prepare(dataset, 0)
        folders.append(set((tmp_path / "models").iterdir()))
        order.write_text("\n".join(dataset.cite.rna.var_names[::-1]))
    assert identities[0] != identities[1]
    assert len(folders[1]) == 2 * len(folders[0])


def test_only_the_presets_named_are_built(tmp_path):
    """`benchmark --methods whole --set network.width=30` had been refused because of the heads of other presets."""
    method = choose(["whole"], models=tmp_path, settings={"network.width": 30})[0]
    assert method.settings["network"]["width"] == 30
    with pytest.raises(SettingError, match="multiple of"):
        choose(["whole", "fast"], models=tmp_path, settings={"network.width": 30})


def test_a_failing_method_is_reported_and_the_others_run(dataset, tmp_path):
    def broken(cells, seed):
        raise ValueError("no convergence\nsecond line")

    methods = [
        Method(name="absent", represent=broken, library="no-such-distribution"),
        Method(name="broken", represent=broken),
        *choose(["adt"], models=tmp_path),
    ]
    rows, shown = run(dataset, methods, tasks(["unsupervised"], [0.5]), tmp_path)
    notes = {row["method"]: (row["status"], row["note"]) for row in rows}
    assert notes["absent"] == ("not installed", "not installed; pip install 'scfusionttt[bench]'")
    assert notes["broken"] == ("failed", "ValueError: no convergence")
    assert notes["adt"][0] == "done"
    assert "pip install" in shown[0]
    table = results.tables(rows)[0]
    assert table.rows.index[0] == "adt" and "broken: ValueError: no convergence" in table.markdown()


def test_methods_that_need_proteins_are_not_applicable_without_them(dataset, tmp_path):
    rna = Cells("rna", replace(dataset.cite, protein=None), "cell_type")
    methods = choose(["rna_pca", "adt"], models=tmp_path)
    rows, _ = run(rna, methods, tasks(["unsupervised"], [0.5]), tmp_path)
    assert {row["method"]: row["status"] for row in rows} == {"rna_pca": "done", "adt": "not applicable"}


def test_the_autoencoder_learns(dataset):
    rna, protein = (torch.from_numpy(zscore(values)) for values in (dataset.rna, dataset.protein))
    _, losses = autoencoder.train(rna, protein, seed=0)
    assert losses[-1] < 0.95 * losses[0]
    z = autoencoder.represent(dataset, 3)
    assert z.shape == (160, 32)
    np.testing.assert_array_equal(z, autoencoder.represent(dataset, 3))


def test_intervals_are_students_t_over_seeds():
    row = {"protocol": "unsupervised", "dataset": "d", "labels": "l", "share": None, "method": "m", "status": "done",
           "note": "", "seconds": 1.0, "peak_memory": None}  # fmt: skip
    rows = [{**row, "seed": seed, "metrics": {"ARI": value}} for seed, value in enumerate((0.1, 0.2, 0.6))]
    line = results.summarise(rows).set_index("metric").loc["ARI"]
    assert (line["mean"], line["n"]) == (pytest.approx(0.3), 3)
    assert line["high"] - line["mean"] == pytest.approx(4.302653 * np.std([0.1, 0.2, 0.6], ddof=1) / np.sqrt(3))
    assert results.tables(rows[:1])[0].rows.loc["m", "ARI ↑"] == "0.100"


def test_tables_and_panels_of_other_labels_or_shares_are_told_apart():
    """A figure had the methods of two columns of labels in one panel; captions had no share, or rounded it to 0 %."""
    rows = [
        {"protocol": "held-out", "dataset": "d", "labels": labels, "share": share, "method": method, "seed": 0,
         "metrics": {"ARI": 0.5, "macro_f1": 0.5}, "status": "done", "note": "", "seconds": 1.0, "peak_memory": None}
        for labels in ("type", "state") for share in (0.001, 0.0015) for method in ("base", "other")
    ]  # fmt: skip
    axes = results.figure(results.summarise(rows), "held-out")
    assert [len(ax.get_yticklabels()) for ax in axes] == [2] * 8
    assert axes[1].get_title(loc="left") == "d (type), macro_f1, 0.1% of the labels"
    captions = [table.caption for table in results.tables(rows, reference="base")]
    assert len(set(captions)) == 8
    assert captions[-1] == "d (state, 0.15% of the labels), difference from base"


def test_a_seed_that_failed_does_not_move_its_method_to_the_end():
    row = {"protocol": "unsupervised", "dataset": "d", "labels": "l", "share": None, "seconds": 1.0,
           "peak_memory": None}  # fmt: skip
    done = {"status": "done", "note": ""}
    rows = [
        {**row, **done, "method": "worse", "seed": 0, "metrics": {"ARI": 0.1}},
        {**row, **done, "method": "better", "seed": 0, "metrics": {"ARI": 0.5}},
        {**row, "method": "better", "seed": 1, "metrics": {}, "status": "failed", "note": "out of memory"},
    ]
    assert list(results.tables(rows)[0].rows.index) == ["better", "worse"]


def test_methods_are_ranked_over_data_sets():
    values = {"first": (0.9, 0.8), "second": (0.7, 0.9), "third": (0.5, 0.1), "elsewhere": (0.99, None)}
    rows = [
        {"dataset": name, "labels": "type", "protocol": "held-out", "share": 0.05, "method": method, "seed": seed,
         "metrics": {"ARI": value + seed / 100, "macro_f1": 0.5 if method == "third" else value}, "seconds": 1.0,
         "peak_memory": None, "status": "done"}
        for method, pair in values.items() for name, value in zip("ab", pair) if value is not None for seed in (0, 1)
    ]  # fmt: skip
    (table,) = rank_tables(rows)
    assert table.caption == "mean ranks, 5% of the labels"
    assert list(table.rows.columns) == ["mean rank", "a (type)", "b (type)", "ARI", "macro F1"]
    assert table.rows.T.to_dict("list") == {
        "first": ["1.50", "1.00", "2.00", "1.50", "1.50"], "second": ["1.50", "2.00", "1.00", "1.50", "1.50"],
        "third": ["3.00"] * 5,
    }  # fmt: skip
    assert not list(rank_tables([row for row in rows if row["dataset"] == "a"]))
    assert not list(rank_tables([row | {"status": "failed"} for row in rows]))


def test_differences_are_paired_by_seed():
    """The spread over seeds, common to both, had hidden a difference that every seed shows."""
    row = {"protocol": "ablation", "dataset": "d", "labels": "l", "share": 0.05, "status": "done", "note": "",
           "seconds": 1.0, "peak_memory": None}  # fmt: skip
    values = {"base": (0.1, 0.9, 0.5), "other": (0.12, 0.93, 0.51)}
    rows = [
        {**row, "method": method, "seed": seed, "metrics": {"hidden_gene_r2": value}}
        for method, of_seeds in values.items() for seed, value in enumerate(of_seeds)
    ]  # fmt: skip
    lone = {**row, "method": "other", "seed": 7, "metrics": {"hidden_gene_r2": 0.0}}
    line = paired([*rows, lone], "base").set_index("metric").loc["hidden_gene_r2"]
    assert (line["n"], line["difference"]) == (3, pytest.approx(0.02))
    assert line["effect"] == pytest.approx(2)  # differences 0.02, 0.03, 0.01
    assert line["high"] - line["low"] == pytest.approx(2 * 4.302653 * 0.01 / np.sqrt(3))
    table = paired_tables(rows, "base")[0]
    assert table.rows.loc["other", "hidden genes R² ↑"] == "+0.020 ± 0.025 (+2.0)"


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


def test_every_order_hides_the_same_features(dataset):
    parts = []
    for order in ("genome", "shuffled"):
        model = FusionTTT("fast", data={"order": order}, **TINY_SECTIONS).build(dataset.cite)
        table = model.features.table.assign(part=_parts(model, 3), other=_parts(model, 4))
        parts.append(table.set_index(["modality", "name"])[["part", "other"]].sort_index())
    pd.testing.assert_frame_equal(*parts)
    assert not (parts[0]["part"] == parts[0]["other"]).all()


def test_a_trained_model_explains_hidden_values_and_a_random_one_does_not(dataset):
    settings = {"network": {"width": 16, "latent": 8}, "pretrain": {"epochs": 12, "lr": 1e-2}}
    model = FusionTTT("fast", progress=False, **settings).pretrain(dataset.cite[np.arange(120)])
    trained = reconstruction_scores(model, dataset.cite[np.arange(120, 160)], seed=0)
    random = reconstruction_scores(model.build(dataset.cite), dataset.cite[np.arange(120, 160)], seed=0)
    assert trained["hidden_protein_r2"] > 0.1 > random["hidden_protein_r2"]
    assert trained["protein_from_rna_r"] > 0.1


def test_each_variant_changes_one_setting(tmp_path):
    variants = Variants(preset("fast"), tmp_path)
    orders = variants.of_study("order")
    assert [method.settings["data"]["order"] for method in orders] == [
        "genome", "reverse", "shuffled", "chromosomes", "family", "expression",
    ]  # fmt: skip
    assert [method.settings["network"] for method in orders] == [orders[0].settings["network"]] * len(orders)
    layers = [
        {name: method.settings["network"][name] for name in ("mixer", "fusion")} for method in variants.of_study("ttt")
    ]
    assert [*map(tuple, map(dict.values, layers))] == [
        ("ttt", "ttt"), ("ttt", "add"), ("none", "ttt"), ("none", "add"), ("attention", "attention"),
    ]  # fmt: skip
    assert variants.of_setting("network.mixer=none")[0].name == "network.mixer=none, network.fusion=ttt"
    assert [method.settings["pretrained"] for method in variants.of_study("stages")] == [True, False, False]
    assert [m.settings["pretrain"]["lr"] for m in variants.of_setting("pretrain.lr=0.001,0.01")] == [0.001, 0.01]
    assert protocol_of("stages", []) == protocol_of(None, ["finetune.lr=1,2"]) == "held-out"
    assert protocol_of("order", []) == protocol_of(None, ["pretrain.lr=1,2"]) == "ablation"


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: choose(["pca"], models=None), "no method 'pca'"),
        (lambda: choose(["adt", "adt"], models=None), "more than once"),
        (lambda: choose(["adt"], models=None, settings={"network.width": 16}), "have no effect"),
        (lambda: tasks(["zero"], [0.5]), "no protocol 'zero'"),
        (lambda: tasks(["held-out"], [1.5]), "between 0 and 1"),
        (lambda: Variants(preset("fast"), None).of_study("size"), "no ablation 'size'"),
        (lambda: Variants(preset("fast"), None).of_setting("pretrain.lr="), "has no values"),
    ],
)
def test_wrong_names_are_refused(call, message):
    with pytest.raises(SettingError, match=message):
        call()


def test_the_commands(cells, tmp_path, monkeypatch, scfusionttt):
    monkeypatch.chdir(tmp_path)
    with quiet():
        cells.write_h5mu("sim.h5mu")
    result = scfusionttt("benchmark sim.h5mu --labels cell_type --methods adt,logistic --seeds 2 --shares 0.5 --out b")
    assert result.code == 0, result.err
    assert "[4/4] sim held-out 0.5 logistic seed 1: ARI" in result.out
    assert (tmp_path / "b" / "results.md").read_text().count("## ") == 2

    tiny = " ".join(f"--set {name}={value}" for name, value in TINY.items())
    shown = f"ablate stages sim.h5mu --labels cell_type --seeds 1 --shares 0.5 --preset fast {tiny} --out a"
    result = scfusionttt(shown)
    assert result.code == 0, result.err
    assert "not pretrained, fine-tuned for as long as pretraining" in result.out
    assert "failed" not in (tmp_path / "a" / "results.json").read_text()

    assert "no input given" in scfusionttt("ablate order --labels cell_type").err
    assert scfusionttt("benchmark sim.h5mu --labels nothing --methods adt --out c").code == 2


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


@pytest.fixture(scope="module")
def cohort():
    """Return cells of two batches."""
    cite = as_citeseq(scfusionttt.simulate(160, 300, 8, 3, rare_fraction=0.2, n_batches=2, batch_effect=0.8))
    return Cells("cohort", cite, "cell_type", "batch")


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


def test_harmony_brings_the_means_of_batches_together(cohort):
    gaps = []
    for method in choose(["concat", "concat_harmony"], models="unused"):
        z, first = method.represent(cohort, 0), cohort.batches == "batch 1"
        gaps.append(np.linalg.norm(z[first].mean(axis=0) - z[~first].mean(axis=0)))
    assert gaps[1] < 0.5 * gaps[0]


def test_what_needs_batches_is_not_applicable_without(dataset, tmp_path):
    rows, _ = run(dataset, choose(["concat_harmony"], models=tmp_path), tasks(["unsupervised"], [0.5]), tmp_path)
    assert (rows[0]["status"], rows[0]["note"]) == (
        "not applicable", "needs batches; name their column with batch_key",
    )  # fmt: skip
    with pytest.raises(LabelError, match=r"there is no obs\['donor'\]"):
        _ = replace(dataset, batch_key="donor").batches
