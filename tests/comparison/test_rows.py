"""Rows are computed once for each state of the code, the cells and the settings."""

from dataclasses import replace

import numpy as np
import pytest

import scfusionttt
from comparison_runs import TINY, run
from scfusionttt.comparison import fingerprints, results
from scfusionttt.comparison.cells import Cells
from scfusionttt.comparison.methods import Method, choose
from scfusionttt.comparison.rows import comparable
from scfusionttt.comparison.tasks import jobs, tasks
from scfusionttt.errors import LabelError
from scfusionttt.evaluation.baselines import zscore


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


def test_what_needs_batches_is_not_applicable_without(dataset, tmp_path):
    rows, _ = run(dataset, choose(["concat_harmony"], models=tmp_path), tasks(["unsupervised"], [0.5]), tmp_path)
    assert (rows[0]["status"], rows[0]["note"]) == (
        "not applicable", "needs batches; name their column with batch_key",
    )  # fmt: skip
    with pytest.raises(LabelError, match=r"there is no obs\['donor'\]"):
        _ = replace(dataset, batch_key="donor").batches
