"""The features that a protein or a class depends on: contributions of genes and proteins, tested by permutation.

The contribution of a feature to the model's output in a cell comes from integrated gradients (Sundararajan et al.,
arXiv 1703.01365) between the mean cell (every value 0) and the cell, or from masking: the output minus that without
the feature. Its *share* is ``cov(contribution, truth) / var(truth)`` over the cells: the part of the measured values
that it explains. With integrated gradients the shares of all features add up to the share of the whole output. The null
distribution is the highest share of any feature when the truth is permuted among the cells.
"""

import logging
import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from scfusionttt import inference
from scfusionttt.data.antibody_matching import antigen_key
from scfusionttt.data.loader import CellBatch, CellDataset, make_loader
from scfusionttt.errors import SettingError, name_some
from scfusionttt.nn.networks import ClassifierNetwork, Network, PretrainNetwork
from scfusionttt.nn.tokens import CellInputs
from scfusionttt.training.machine import cells_at_once

log = logging.getLogger("scfusionttt")

#: Seconds between two lines of progress.
LINE_EVERY = 10.0


class Target(NamedTuple):
    """What is explained: a protein, reconstructed without its own value, or the score (logit) of a class."""

    name: str
    protein: int | None = None  # its number among the proteins
    label: int | None = None  # its number among the classes


def find_target(name: str, network: Network, proteins: pd.DataFrame, classes: list[str]) -> Target:
    """Return the protein (by name, antigen or gene) or class of this name.

    Raises
    ------
    SettingError
        The model has no such protein or class, or several; the message lists some.
    """
    if isinstance(network, PretrainNetwork):
        names, symbols = (proteins[column].astype(str) for column in ("name", "symbol"))
        readings = (
            names.str.lower() == name.lower(),
            names.map(antigen_key) == antigen_key(name),
            symbols.str.lower() == name.lower(),
        )
        for reading in readings:
            matches = np.flatnonzero(reading)
            if names.iloc[matches].nunique() > 1:
                raise SettingError(f"{name!r} matches {name_some(names.iloc[matches].tolist(), 5)}; choose one")
            if len(matches):
                return Target(names.iloc[matches[0]], protein=int(matches[0]))
        known, kind = proteins["name"].tolist(), "protein of this pretrained model"
    else:
        if name in classes:
            return Target(name, label=classes.index(name))
        known, kind = classes, "class of this model; proteins are explained by a pretrained one, before fine-tuning"
    raise SettingError(f"{name!r} is not a {kind}; choose from: {name_some(known, 5) if known else 'none'}")


def relevance(
    network: Network,
    cells: CellDataset,
    features: pd.DataFrame,
    target: Target,
    device: torch.device,
    *,
    types: np.ndarray | None = None,
    is_target: np.ndarray | None = None,
    steps: int = 64,
    masked: int = 50,
    permutations: int = 200,
    level: float = 0.05,
    seed: int = 0,
) -> pd.DataFrame:
    """Return the features whose contribution explains more of the target than expected by chance.

    Parameters
    ----------
    cells
        n cells as the network reads them.
    features
        [g + p], genes and then proteins: modality, name, symbol, chromosome, start.
    types
        [n], cell types to average over.
    is_target
        [n] bool, the cells of the class; None: those that the model predicts.
    steps
        Steps of integrated gradients; 16 are inaccurate, 150 within 1 %, since norms vary fast near the mean cell.
    masked
        Number of top features that are also masked, one at a time.
    level
        Family-wise error rate; 1 lists all features.

    Returns
    -------
    DataFrame, one row per feature, highest share first: modality, name, symbol, chromosome, start; share, its p_value;
    share_by_masking (NaN after the first `masked`); and the mean contribution in each type, in units of the output:
    standard deviations of the protein's log-ratio, or logits.
    """
    if not 0 <= level <= 1:
        raise SettingError(f"level must be between 0 and 1 (got {level}), e.g. 0.05")
    network.to(device).eval()
    truth = _truth(network, cells, target, device, is_target)
    measured = np.flatnonzero(np.isfinite(truth))
    cells, truth = cells.subset(cells.rows[measured]), truth[measured]
    if not len(truth) or np.ptp(truth) == 0:
        raise SettingError(
            f"{target.name} is constant in all {len(truth)} cells where it was measured; nothing to explain"
        )
    output, batch = _output(network, target), max(1, cells_at_once(network, device) // steps)
    contribution_nf = _integrated_gradients(output, cells, target, device, batch, steps)
    share_f = share(contribution_nf, truth)
    table = features.reset_index(drop=True)
    table["share"], table["p_value"] = share_f, p_values(contribution_nf, truth, permutations, seed)
    if target.protein is not None:
        table = table.drop(index=(features["modality"] == "rna").sum() + target.protein)
    table = table[table["p_value"] <= level].sort_values("share", ascending=False, kind="stable")
    first = table.index[:masked]
    table["share_by_masking"] = np.nan
    if len(first):
        table.loc[first, "share_by_masking"] = share(_masking(output, cells, target, device, first, batch), truth)
    if types is not None:
        types = types[measured]
        for name in pd.unique(pd.Series(types).dropna()):
            table[f"mean in {name}"] = contribution_nf[types == name].mean(axis=0)[table.index]
    return table.reset_index(drop=True)


def share(contribution_nf: np.ndarray, truth_n: np.ndarray) -> np.ndarray:
    """Return ``cov(contribution, truth) / var(truth)`` of each feature, [f]."""
    centred = truth_n - truth_n.mean()
    return centred @ contribution_nf / (centred @ centred)


def p_values(contribution_nf: np.ndarray, truth_n: np.ndarray, permutations: int, seed: int) -> np.ndarray:
    """Return p-values [f]: how often the highest share of any feature reaches each one's when truth is permuted."""
    rng = np.random.default_rng(seed)
    highest = np.array([share(contribution_nf, rng.permutation(truth_n)).max() for _ in range(permutations)])
    reached = (highest[:, None] >= share(contribution_nf, truth_n)).sum(axis=0)
    return (1 + reached) / (1 + permutations)


def _truth(
    network: Network, cells: CellDataset, target: Target, device: torch.device, is_target: np.ndarray | None
) -> np.ndarray:
    """Return the measured values that the output is compared with, [n], NaN where missing."""
    if target.protein is not None:
        batches = make_loader(cells, batch_size=1024)
        values = [(b.protein[:, target.protein], b.protein_present[:, target.protein]) for b in batches]
        return torch.cat([torch.where(present, value, torch.nan) for value, present in values]).double().numpy()
    if is_target is None and isinstance(network, ClassifierNetwork):
        is_target = inference.probabilities(network, cells, device)[0].argmax(axis=1) == target.label
    return np.asarray(is_target, dtype=float)


def _output(network: Network, target: Target) -> Callable[[CellInputs], Tensor]:
    if isinstance(network, PretrainNetwork):
        return lambda inputs: network(inputs, from_tokens=False).protein_z[:, target.protein]
    return lambda inputs: network(inputs)[0][:, target.label]


def _inputs(batch: CellBatch, target: Target, device: torch.device) -> CellInputs:
    """Return the inputs of a batch without the protein that is explained."""
    inputs = CellInputs.of(batch).to(device)
    if target.protein is None:
        return inputs
    present = inputs.protein_present.clone()
    present[:, target.protein] = False
    return inputs._replace(protein_present=present)


def _integrated_gradients(
    output: Callable[[CellInputs], Tensor],
    cells: CellDataset,
    target: Target,
    device: torch.device,
    batch_size: int,
    steps: int,
) -> np.ndarray:
    """Return the contribution of each gene and protein in each cell, [n, g + p]."""
    try:
        from captum.attr import IntegratedGradients
    except ImportError as error:
        raise SettingError("integrated gradients need captum: pip install captum") from error

    def read(values: Tensor, rna_present: Tensor, protein_present: Tensor, batch: Tensor) -> Tensor:
        rna, protein = values.split([rna_present.shape[1], protein_present.shape[1]], dim=1)
        return output(CellInputs(rna, rna_present, protein, protein_present, batch))

    gradients, parts, last_line = IntegratedGradients(read), [], time.monotonic()
    for number, batch in enumerate(make_loader(cells, batch_size=batch_size)):
        if time.monotonic() - last_line > LINE_EVERY:
            log.info("%s: %d of %d cells explained", target.name, number * batch_size, len(cells))
            last_line = time.monotonic()
        inputs = _inputs(batch, target, device)
        present = (inputs.rna_present, inputs.protein_present, inputs.batch)
        values = torch.cat([inputs.rna, inputs.protein], dim=1)
        parts.append(gradients.attribute(values, additional_forward_args=present, n_steps=steps).detach().cpu())
    return torch.cat(parts).double().numpy()


@torch.inference_mode()
def _masking(
    output: Callable[[CellInputs], Tensor],
    cells: CellDataset,
    target: Target,
    device: torch.device,
    columns: pd.Index,
    batch_size: int,
) -> np.ndarray:
    """Return the output minus that without each of some features, [n, columns]."""
    parts = []
    for batch in make_loader(cells, batch_size=batch_size):
        inputs = _inputs(batch, target, device)
        whole = output(inputs)
        parts.append(torch.stack([whole - output(_without(inputs, int(column))) for column in columns], dim=1).cpu())
    return torch.cat(parts).double().numpy()


def _without(inputs: CellInputs, column: int) -> CellInputs:
    n_genes = inputs.rna.shape[1]
    field, place = ("rna_present", column) if column < n_genes else ("protein_present", column - n_genes)
    present = getattr(inputs, field).clone()
    present[:, place] = False
    return inputs._replace(**{field: present})
