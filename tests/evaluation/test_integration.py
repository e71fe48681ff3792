import sys

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scipy import sparse

from scfusionttt.errors import InputDataError, LabelError, SettingError
from scfusionttt.evaluation import (
    clustering,
    evaluate_representation,
    integration,
    integration_scores,
    neighbours,
    own_batch,
    with_totals,
)
from scfusionttt.evaluation.integration import BATCH, BIOLOGY
from scfusionttt.evaluation.slots import evaluate_slots

RNG = np.random.default_rng(0)
LABELS, BATCHES = np.repeat(["T", "B", ""], 100), np.tile(["d1", "d2"], 150)
MIXED = RNG.normal(size=(300, 5)) + 8 * (LABELS == "T")[:, None]
APART = MIXED + 8 * (BATCHES == "d1")[:, None] * np.array([1, -1, 1, -1, 0])


def test_totals_weigh_biology_by_six_tenths():
    scores = with_totals({**dict.fromkeys(BIOLOGY, 0.5), **dict.fromkeys(BATCH, 1.0), "PCR": np.nan})
    assert (scores["biology"], scores["batch"]) == (0.5, 1.0)
    assert scores["total"] == pytest.approx(0.7)


def test_mixing_is_scored_by_scib_metrics():
    pytest.importorskip("scib_metrics")
    mixed, apart = (integration_scores(x_nd, LABELS, BATCHES, before=APART) for x_nd in (MIXED, APART))
    assert mixed.keys() | {"NMI", "ARI"} == {*BIOLOGY, *BATCH, "own_batch"}
    assert mixed["own_batch"] == pytest.approx(1, abs=0.1)
    assert apart["own_batch"] == pytest.approx(199 / 99)  # of the other cells, 99 of 199 are from the own batch
    for name in ("iLISI", "kBET", "batch_asw", "PCR"):
        assert mixed[name] > apart[name] + 0.1
    assert mixed["cLISI"] > 0.95
    result = evaluate_representation(MIXED, LABELS).with_integration(mixed)
    assert result.mean["total"] == pytest.approx(0.6 * result.mean["biology"] + 0.4 * result.mean["batch"])


def test_cells_without_a_batch_are_left_out(caplog, monkeypatch):
    """They were scored as a batch of their own."""
    monkeypatch.setattr(integration, "_library", lambda: None)
    monkeypatch.setattr(integration, "_scores", lambda _, x, label, batch, before: {"n": len(x), "k": len(set(batch))})
    batches = BATCHES.astype(object)
    batches[::5] = np.nan  # 40 of the 200 labelled cells
    with caplog.at_level("WARNING", "scfusionttt"):
        assert integration_scores(MIXED, LABELS, batches) == {"n": 160, "k": 2}
    assert caplog.messages == ["warning: mixing is scored without 40 labelled cells, which have no batch"]


def test_what_cannot_be_scored_is_refused(monkeypatch):
    with pytest.raises(InputDataError, match="the labelled cells have a single batch"):
        integration_scores(MIXED, LABELS, ["d1"] * 300)
    with pytest.raises(LabelError, match="at least two labels"):
        integration_scores(MIXED, ["T"] * 300, BATCHES)
    with pytest.raises(InputDataError, match="no label has cells of two batches"):  # as of sorted cells
        integration_scores(MIXED, LABELS, np.where(LABELS == "T", "d1", "d2"))
    adata = AnnData(obsm={"X_fusionttt": MIXED}, obs={"type": LABELS, "donor": BATCHES})
    with pytest.raises(SettingError, match="batch_key applies to a representation, not to clusters"):
        evaluate_slots(adata, labels_key="type", clusters="donor", batch_key="donor")
    monkeypatch.setitem(sys.modules, "scib_metrics", None)
    with pytest.raises(SettingError, match=r"scores of batches need scib-metrics; pip install 'scfusionttt\[bench\]'"):
        evaluate_slots(adata, labels_key="type", batch_key="donor")


def test_own_batch_is_1_where_batches_mix_and_their_number_where_they_are_apart():
    near = neighbours(APART).obsp["distances"]
    assert own_batch(near, BATCHES)["all cells"] == pytest.approx(2, abs=0.1)
    near = neighbours(MIXED).obsp["distances"]
    by_type = own_batch(near, BATCHES, LABELS)
    assert by_type[["T", "B"]].between(0.8, 1.2).all()
    alone = own_batch(near, np.where(LABELS == "T", "d1", BATCHES), LABELS)
    assert np.isnan(alone["T"]), "of one batch, and so neither mixed nor apart"
    assert alone["B"] == by_type["B"]


def test_a_cell_is_no_neighbour_of_itself(monkeypatch):
    """An approximate search stores it, too: in reports on more than 50,000 cells, ten mixed batches had 1.55."""
    batches = np.arange(300) % 10
    exact = own_batch(neighbours(MIXED).obsp["distances"], batches).item()
    monkeypatch.setattr(clustering, "EXACT_NEIGHBORS", 100)
    near = neighbours(MIXED).obsp["distances"]
    assert own_batch(near, batches).item() == pytest.approx(exact, abs=0.1)
    assert np.isnan(own_batch(sparse.eye_array(300, format="csr"), batches).item())


def test_cells_without_a_batch_are_no_batch_of_their_own():
    near, batches = neighbours(MIXED).obsp["distances"], np.array(BATCHES, dtype=object)
    batches[::7] = None
    known = pd.notna(batches)
    expected = own_batch(near[known][:, known], batches[known], np.array(LABELS)[known])
    pd.testing.assert_series_equal(own_batch(near, batches, LABELS), expected)
