import json

import numpy as np
import pandas as pd
import pytest

from scfusionttt.errors import InputDataError, LabelError, SettingError
from scfusionttt.evaluation import (
    TEN_METRICS,
    classification_scores,
    evaluate_as_published,
    evaluate_clusters,
    evaluate_graph,
    evaluate_predictions,
    evaluate_representation,
    neighbours,
)


@pytest.fixture(scope="module")
def cells():
    rng = np.random.default_rng(0)
    codes = np.repeat(np.arange(4), 50)
    x_nd = rng.normal(size=(200, 6)) + 4 * rng.normal(size=(4, 6))[codes]
    return x_nd, np.array(["B", "NK", "T", "monocyte"], dtype=object)[codes]


@pytest.mark.parametrize(
    ("labels", "predicted"),
    [
        ([1.0, 2.0, 2.0, 1.0], ["1", "2", "2", "1"]),
        (pd.Categorical([1.0, 2.0, 2.0, 1.0]), ["1", "2", "2", "1"]),
        ([1, 2, 2, 1], pd.Categorical([1.0, 2.0, 2.0, 1.0])),
        ([" B cell ", "T cell", "T cell\n", " B cell"], ["B cell", "T cell", "T cell", "B cell"]),
        ([True, False, False, True], ["True", "False", "False", "True"]),
        (pd.Series(["B", "T", "T", "B"], dtype="string"), ["B", "T", "T", "B"]),
    ],
)
def test_perfect_predictions_score_one_whatever_the_dtype(labels, predicted):
    """Labels 1.0 and " B cell " scored 0 against the predictions "1" and "B cell"."""
    result = evaluate_predictions(predicted, labels)
    assert result.mean["accuracy"] == result.mean["macro_f1"] == result.mean["ARI"] == 1
    assert classification_scores(labels, predicted)["accuracy"] == 1
    assert evaluate_clusters(predicted, labels).mean["ARI"] == 1


def test_mean_over_clustering_seeds(cells):
    result = evaluate_representation(*cells, seeds=(0, 5))
    assert result.protocol == "unsupervised"
    assert result.scores.index.tolist() == [0, 5]
    assert result.scores.columns.tolist() == list(TEN_METRICS)
    assert result.n_clusters == (4, 4)
    assert (result.n_cells, result.n_unlabelled, result.n_classes) == (200, 0, 4)
    assert result.mean["ARI"] > 0.95
    assert result.mean["SC"] == pytest.approx(result.scores["SC"].mean())
    assert result.std["SC"] == pytest.approx(result.scores["SC"].std(ddof=0))


def test_unlabelled_cells_are_clustered_but_not_scored(cells):
    x_nd, labels = cells
    labels = labels.copy()
    labels[::10] = "unknown"
    labels[1::10] = np.nan
    result = evaluate_representation(x_nd, labels, seeds=(0,))
    assert set(result.to_dict()["std"].values()) == {None}, "one seed has no spread"
    assert (result.n_cells, result.n_unlabelled, result.n_classes) == (160, 40, 4)
    # the same clusters, scored by hand on the labelled cells
    whole = evaluate_representation(x_nd, cells[1], seeds=(0,))
    assert result.n_clusters == whole.n_clusters
    assert result.mean["ARI"] > 0.95


def test_clusters_of_unlabelled_cells_are_not_scored(cells):
    _, labels = cells
    labels = labels.copy()
    labels[:20] = "unassigned"
    clusters = np.where(labels == "unassigned", "z", labels)
    result = evaluate_clusters(clusters, labels)
    assert result.mean["ARI"] == 1
    assert result.n_clusters == (5,)
    assert np.isnan(result.mean["SC"])
    clusters[:20] = "B"
    assert evaluate_clusters(clusters, labels).mean["ARI"] == 1


def test_cells_without_a_cluster_are_left_out():
    """A missing cluster was a cluster of its own: with one in three cells missing, the ARI of perfect clusters fell."""
    labels = np.repeat(["B", "T"], 30)
    clusters = pd.Series(labels, dtype=object)
    clusters[::3] = np.nan
    result = evaluate_clusters(clusters, labels)
    assert (result.mean["ARI"], result.n_clusters) == (1, (2,))
    assert (result.n_cells, result.n_unlabelled) == (40, 20)
    with pytest.raises(LabelError, match="none of the 60 cells has both a label and a cluster"):
        evaluate_clusters([np.nan] * 60, labels)


def test_umap_space_changes_the_geometry_only(cells):
    rep, flat = (
        evaluate_representation(*cells, seeds=(0,), space=space, protocol="paper") for space in ("rep", "umap")
    )
    assert (rep.space, flat.space, flat.protocol) == ("rep", "umap", "paper")
    for name in ("ARI", "NMI", "FMI", "AMI", "JI", "F"):
        assert rep.mean[name] == flat.mean[name]
    for name in ("ASW", "SC", "CHI", "DBI"):
        assert rep.mean[name] != flat.mean[name]


def test_predictions_are_held_out_and_scored_by_class():
    labels = ["B", "B", "T", "T", "unknown"]
    result = evaluate_predictions(["B", "T", "T", "T", "B"], labels, [0.9, 0.6, 0.8, 0.7, 0.5])
    assert result.protocol == "held-out"
    assert (result.n_cells, result.n_unlabelled, result.n_classes) == (4, 1, 2)
    assert result.mean["accuracy"] == 0.75
    assert set(result.mean) == {"accuracy", "balanced_accuracy", "macro_f1", "weighted_f1", "ARI", "NMI", "ece"}
    assert result.to_dict()["per_class"]["T"] == pytest.approx(
        {"precision": 2 / 3, "recall": 1, "f1": 0.8, "support": 2}
    )


def test_results_are_plain_json(cells):
    x_nd, labels = cells
    for result in (
        evaluate_representation(x_nd, labels, seeds=(0,)),
        evaluate_clusters(labels, labels),
        evaluate_predictions(labels, labels),
    ):
        text = json.dumps(result.to_dict(), allow_nan=False)
        assert json.loads(text)["protocol"] == result.protocol
    assert evaluate_clusters(labels, labels).to_dict()["metrics"]["SC"] is None


def test_bad_input_is_refused(cells):
    x_nd, labels = cells
    with pytest.raises(LabelError, match="one label per cell"):
        evaluate_representation(x_nd, labels[1:])
    with pytest.raises(LabelError, match="none of the 200 cells is labelled"):
        evaluate_representation(x_nd, ["NA"] * 200)
    with pytest.raises(LabelError, match=r"a single class \(B\)"):
        evaluate_representation(x_nd, ["B"] * 200)
    with pytest.raises(LabelError, match=r"a single class \(B\)"):  # any clusters would have had an ARI of 1
        evaluate_clusters(["B"] * 200, ["B"] * 200)
    with pytest.raises(SettingError, match="n_clusters=0 is not between 1"):  # it was taken for no number
        evaluate_representation(*cells, n_clusters=0)
    with pytest.raises(SettingError, match="'tsne'"):
        evaluate_representation(x_nd, labels, space="tsne")
    for score in (evaluate_representation, evaluate_as_published):
        with pytest.raises(SettingError, match="seeds is empty"):
            score(x_nd, labels, seeds=())
    with pytest.raises(SettingError, match="seeds is empty"):
        evaluate_graph(neighbours(x_nd).obsp["connectivities"], labels, seeds=())
    with pytest.raises(SettingError, match="'mixed'"):
        evaluate_clusters(labels, labels, protocol="mixed")
    with pytest.raises(InputDataError, match="199 rows"):
        evaluate_clusters(labels, labels, x_nd[1:])
