import numpy as np
import pandas as pd
import pytest

from scfusionttt.errors import SettingError
from scfusionttt.evaluation import evaluate_predictions, evaluate_representation
from scfusionttt.report.tables import Table, format_value, key_values, metric_table


def test_metric_table_names_protocol_direction_and_meaning():
    table = metric_table(
        {"TTT": {"ARI": 0.8321, "DBI": 1.31, "n_runs": 3}}, protocol="unsupervised", caption="Clusters"
    )
    assert table.header == ["", "ARI ↑", "DBI ↓", "n_runs"]
    assert table.body == [["TTT", "0.832", "1.310", "3"]]
    assert table.numeric == [False, True, True, True]
    assert table.notes == "ARI: adjusted Rand index; DBI: Davies-Bouldin index, 0 upwards"
    text = table.markdown()
    assert text.startswith("Clusters. unsupervised: no labels were used in training\n\n|  | ARI ↑ |")
    assert "| --- | ---: | ---: | ---: |\n| TTT | 0.832 | 1.310 | 3 |" in text


def test_every_metric_of_an_evaluation_is_explained():
    labels = np.repeat(["B", "T"], 20)
    clusters = evaluate_representation(np.random.default_rng(0).normal(size=(40, 3)), labels, seeds=(0,))
    predictions = evaluate_predictions(labels, labels, np.full(40, 0.9))
    for result in (clusters, predictions):
        assert metric_table(result.summary(), protocol=result.protocol).notes.count(": ") == result.scores.shape[1]


def test_unknown_protocol_is_refused():
    with pytest.raises(SettingError, match="protocol 'mixed' does not exist; choose one of: unsupervised, held-out"):
        metric_table({"a": {"ARI": 1.0}}, protocol="mixed")


def test_scores_given_are_not_changed():
    scores = pd.DataFrame({"ARI": [0.5]}, index=["a"])
    metric_table(scores, protocol="held-out")
    assert list(scores.columns) == ["ARI"]


def test_key_values_flatten():
    table = key_values({"preset": "default", "training": {"lr": 5e-4, "seed": 0}, "order": ["a", 1]})
    assert table.body == [["preset", "default"], ["training.lr", "0.0005"], ["training.seed", "0"], ["order", "a, 1"]]


@pytest.mark.parametrize(
    "value, text",
    [
        (0.9132, "0.913"), (1402.3, "1,402"), (0.0, "0.000"), (-0.5, "-0.500"), (3e-7, "3e-07"), (2.5e9, "2.5e+09"),
        (-1e-16, "0.000"),
        (np.float32(0.25), "0.250"), (float("nan"), "–"), (float("inf"), "inf"), (None, "–"), (pd.NA, "–"),
        (True, "yes"),
        (np.bool_(False), "no"), (6855, "6,855"), (np.int64(12), "12"), ([], "–"), ("text", "text"),
    ],
)  # fmt: skip
def test_format_value(value, text):
    assert format_value(value) == text


def test_markdown_keeps_its_columns_whatever_the_names():
    table = Table(pd.DataFrame({"a|b": ["x\ny"]}, index=pd.Index(["p|q"], name="class")))
    assert table.markdown() == "| class | a\\|b |\n| --- | --- |\n| p\\|q | x y |"


def test_repeated_names_keep_their_own_values():
    table = Table(pd.DataFrame([[1, 2]], index=["r"], columns=["same", "same"]))
    assert table.body == [["r", "1", "2"]]
