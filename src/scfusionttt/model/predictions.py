"""Predicted classes as a table, and their scores on held-out cells."""

import logging
from typing import Any

import numpy as np
import pandas as pd
import torch

from scfusionttt import inference, keys
from scfusionttt.data.loader import CellDataset, StreamedCells
from scfusionttt.data.split import Labels
from scfusionttt.evaluation import baselines, evaluate_predictions
from scfusionttt.nn.networks import ClassifierNetwork

log = logging.getLogger("scfusionttt")

#: Columns of a table of predictions that are not classes, and the name of its index.
_COLUMNS = ("cell", "label", "probability", "p_value")


def class_table(
    probability: np.ndarray,
    p_value: np.ndarray,
    dataset: CellDataset,
    classes: list[str],
    unknown: float | None = None,
) -> pd.DataFrame:
    """Return the table of :meth:`scfusionttt.FusionTTT.predict` from probabilities [n, c] and p-values [n]."""
    best = probability.argmax(axis=1)
    index = pd.Index(dataset.cell_names[dataset.rows], name="cell")
    label = pd.Series(pd.Categorical.from_codes(best, categories=pd.Index(classes)), index=index)
    columns = {"label": label, "probability": probability[np.arange(len(best)), best]}
    if unknown is not None:
        label = label if keys.UNKNOWN in classes else label.cat.add_categories(keys.UNKNOWN)
        columns |= {"label": label.mask(p_value <= unknown, keys.UNKNOWN), "p_value": p_value}
    by_class = pd.DataFrame(probability, index=index, columns=class_columns(classes))
    return pd.concat([pd.DataFrame(columns, index=index), by_class], axis=1)


def class_columns(classes: list[str]) -> list[str]:
    """Return the column of each class: its name, prefixed with ``class `` if another column has that name."""
    taken = {*_COLUMNS, *classes}

    def free(name: str) -> str:
        return free(f"class {name}") if name in taken else name

    return [free(f"class {name}") if name in _COLUMNS else name for name in classes]


def predict_classes(
    network: ClassifierNetwork, dataset: CellDataset, classes: list[str], device: torch.device
) -> pd.DataFrame:
    """Return the table of :meth:`scfusionttt.FusionTTT.predict`."""
    return class_table(*inference.probabilities(network, dataset, device), dataset, classes)


def score_held_out(
    network: ClassifierNetwork, dataset: CellDataset, labels: Labels, device: torch.device, *, baseline: bool
) -> dict[str, Any]:
    """Score the predictions for the held-out cells and, if asked for, those of logistic regression.

    The regression reads what the network reads: RNA alone next to a student.

    Returns
    -------
    As :meth:`scfusionttt.evaluation.Evaluation.to_dict`; with `baseline` also the same under ``logistic_regression``.
    """
    held_out = dataset.subset(labels.held_out)
    log.info("scoring %d held-out cells", len(held_out))
    table = predict_classes(network, held_out, labels.classes, device)
    truth = np.asarray(labels.classes)[held_out.labels[held_out.rows]]
    scores = evaluate_predictions(
        table["label"], truth, table["probability"].to_numpy(), protocol="held-out"
    ).to_dict()  # fmt: skip
    if baseline and isinstance(dataset, StreamedCells):
        log.info("skipping the logistic-regression baseline: it needs all cells in memory")
    elif baseline:
        names = np.asarray(labels.classes)[labels.codes]
        protein = dataset.protein if inference.uses_proteins(network) else dataset.protein[:, :0]
        fitted = baselines.score_logistic_regression(dataset.rna, protein, names, labels.train, labels.held_out)
        scores["logistic_regression"] = fitted.to_dict()
    return scores
