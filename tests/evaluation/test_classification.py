import numpy as np
import pandas as pd
import pytest
from sklearn import metrics as sk

from scfusionttt.errors import InputDataError, SettingError
from scfusionttt.evaluation.classification import (
    class_table,
    classification_scores,
    confusion,
    expected_calibration_error,
)

LABELS = ["B", "B", "B", "B", "NK", "NK", "T", "T", "T", "T"]
PREDICTED = ["B", "B", "B", "T", "NK", "T", "T", "T", "T", "B"]


def test_scores_against_scikit_learn():
    assert classification_scores(LABELS, PREDICTED) == pytest.approx(
        {
            "accuracy": 0.7,
            "balanced_accuracy": sk.balanced_accuracy_score(LABELS, PREDICTED),
            "macro_f1": sk.f1_score(LABELS, PREDICTED, average="macro"),
            "weighted_f1": sk.f1_score(LABELS, PREDICTED, average="weighted"),
        }
    )


def test_class_table_by_hand():
    table = class_table(LABELS, PREDICTED)
    assert table.loc["B"].tolist() == [0.75, 0.75, 0.75, 4]
    assert table.loc["NK"].tolist() == pytest.approx([1.0, 0.5, 2 / 3, 2])


def test_a_prediction_outside_the_classes_is_wrong_and_adds_no_class():
    scores = classification_scores(["B", "B", "T", "T"], ["B", "unknown", "T", "T"])
    assert scores["accuracy"] == 0.75
    assert scores["macro_f1"] == pytest.approx((2 / 3 + 1) / 2)
    assert class_table(["B", "T"], ["unknown", "T"]).index.tolist() == ["B", "T"]


def test_confusion_keeps_every_class_and_counts_every_cell():
    table = confusion(["B", "NK", "T", "T"], ["B", "T", "T", "unknown"])
    assert table.index.tolist() == ["B", "NK", "T"]
    assert table.columns.tolist() == ["B", "NK", "T", "unknown"]
    assert table.to_numpy().tolist() == [[1, 0, 0, 0], [0, 0, 1, 0], [0, 0, 1, 1]]


def test_categorical_and_text_labels_are_the_same_class():
    assert classification_scores(pd.Categorical([3, 5, 5]), ["3", "5", "3"])["accuracy"] == pytest.approx(2 / 3)


def test_calibration_by_hand():
    # one bin holds 0.9 and 0.92 with one right of two, another 0.5 right: (|1 - 1.82| + |1 - 0.5|) / 3
    error = expected_calibration_error(["a", "a", "b"], ["a", "b", "b"], [0.9, 0.92, 0.5], n_bins=10)
    assert error == pytest.approx((0.82 + 0.5) / 3)
    assert expected_calibration_error(["a", "b"], ["a", "b"], [1.0, 1.0]) == 0


def test_calibrated_predictions_have_a_small_error():
    rng = np.random.default_rng(0)
    confidence = rng.uniform(0.5, 1, 20_000)
    predicted = np.where(rng.uniform(size=20_000) < confidence, "a", "b")
    assert expected_calibration_error(np.full(20_000, "a"), predicted, confidence) < 0.02
    assert expected_calibration_error(np.full(20_000, "a"), predicted, np.ones(20_000)) == pytest.approx(0.25, abs=0.02)


def test_bad_input_is_named():
    with pytest.raises(InputDataError, match=r"\(2,\) do not match predictions of shape \(1,\)"):
        classification_scores(["a", "b"], ["a"])
    with pytest.raises(InputDataError, match="one probability"):
        expected_calibration_error(["a"], ["a"], [1.2])
    with pytest.raises(SettingError, match=r"n_bins must be a whole number above 0 \(got 0\)"):
        expected_calibration_error(["a"], ["a"], [0.9], n_bins=0)
