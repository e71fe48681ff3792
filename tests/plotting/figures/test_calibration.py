import numpy as np
import pandas as pd
import pytest

from scfusionttt.evaluation import expected_calibration_error, reliability
from scfusionttt.plotting.figures import calibration


def test_the_diagram_shows_the_expected_calibration_error():
    rng = np.random.default_rng(0)
    truth, predicted = rng.integers(0, 3, 301).astype(str), rng.integers(0, 3, 301).astype(str)
    confidence = rng.uniform(0.3, 1, 301)
    bins = reliability(truth, predicted, confidence)
    ax = calibration(bins, title="held-out")
    error = expected_calibration_error(truth, predicted, confidence)
    assert any(f"{error:.3f}" in text.get_text() for text in ax.texts)
    np.testing.assert_allclose(ax.collections[-1].get_offsets(), bins[["confidence", "accuracy"]])
    assert bins["cells"].sum() == 301


def test_no_predictions_show_the_reason():
    ax = calibration(pd.DataFrame({"confidence": [], "accuracy": [], "cells": []}))
    assert [text.get_text() for text in ax.texts] == ["no predictions to show"]


def test_confident_and_correct_predictions_are_on_the_diagonal():
    bins = reliability(["a", "b"], ["a", "b"], [1.0, 1.0])
    assert bins.to_dict("records") == [{"confidence": 1.0, "accuracy": 1.0, "cells": 2}]
    assert expected_calibration_error(["a", "b"], ["a", "b"], [1.0, 1.0]) == pytest.approx(0)
