"""The features that a protein or a class depends on: contributions of genes and proteins, tested by permutation.

The contribution of a feature to the model's output in a cell comes from integrated gradients (Sundararajan et al.,
arXiv 1703.01365) between the mean cell (every value 0) and the cell, or from masking: the output minus that without
the feature. Integrated gradients of all features add up to the change of the output, so their covariances with the
measured values add up to that of the output; a feature's *share* is its part of this sum. Its *score* is the
correlation of its contribution with the measured values, negative if high values of the feature lower the output. The
null distribution is the highest such correlation of any feature when the measured values are permuted among the cells.
"""

import logging
import time
from collections.abc import Callable
from functools import partial
from numbers import Integral
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from scfusionttt import inference
from scfusionttt.data.antibody_matching import proteins_called
from scfusionttt.data.loader import CellBatch, CellDataset, make_loader
from scfusionttt.errors import SettingError, missing_extra, name_some, require
from scfusionttt.nn.networks import ClassifierNetwork, Network, PretrainNetwork
from scfusionttt.nn.tokens import CellInputs
from scfusionttt.training.machine import cells_at_once

log = logging.getLogger("scfusionttt")

#: Seconds between two lines of progress.
LINE_EVERY = 10.0
#: Features in a panel that is compared with random panels, number of these, and penalty of the regression per cell.
PANEL, RANDOM_PANELS, _PENALTY = 10, 50, 0.01


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
        matches = proteins_called(name, proteins)
        names = proteins["name"].astype(str).iloc[matches]
        if names.nunique() > 1:
            raise SettingError(f"{name!r} matches {name_some(names.tolist(), 5)}; choose one")
        if len(matches):
            return Target(names.iloc[0], protein=int(matches[0]))
        known, kind = proteins["name"].tolist(), "protein of this pretrained model"
    else:
        if name in classes:
            return Target(name, label=classes.index(name))
        known, kind = classes, "class of this model; proteins are explained by a pretrained one, before fine-tuning"
    raise SettingError(f"{name!r} is not a {kind}; choose from: {name_some(known, 5) if known else 'none'}")


def draw_cells(
    cells: CellDataset, target: Target, n_cells: int, *, types: np.ndarray | None, seed: int
) -> CellDataset:  # fmt: skip
    """Draw cells, in their order, that have the protein or, given `types` [n], one to compare a class with.

    SettingError: the protein was measured in none of the cells.
    """
    if target.protein is not None:
        cells = cells.with_protein(target.protein)
        require(len(cells) > 0, f"{target.name} was measured in none of the cells; nothing to explain")
    elif types is not None:
        cells = cells.subset(cells.rows[pd.notna(types[cells.rows])])
    return cells.subset(np.sort(np.random.default_rng(seed).permutation(cells.rows)[:n_cells]))


def relevance(
    network: Network,
    cells: CellDataset,
    features: pd.DataFrame,
    target: Target,
    device: torch.device,
    *,
    types: np.ndarray | None = None,
    is_target: np.ndarray | None = None,
    rna_only: bool = False,
    steps: int = 64,
    masked: int = 50,
    permutations: int = 200,
    level: float = 0.05,
    seed: int = 0,
) -> pd.DataFrame:
    """Return the features whose contribution explains more of the target than expected by chance.

    Parameters
    ----------
    network
        A pretrained network to explain a protein, a classifier to explain a class; moved to `device`.
    cells
        n cells as the network reads them.
    features
        [g + p], genes and then proteins: modality, name, symbol, chromosome, start.
    target
        What is explained, from :func:`find_target`.
    types
        [n], cell types to average over.
    is_target
        [n] bool, the cells of the class; None: those that the model predicts.
    rna_only
        Hide all proteins from the model, so that the target is explained by genes alone.
    steps
        Steps of integrated gradients; 16 are inaccurate, 150 within 1 %, since norms vary fast near the mean cell.
    masked
        Number of top features that are also masked, one at a time.
    permutations
        Permutations of the measured values for the null distribution.
    level
        Family-wise error rate, not below 1 / (1 + permutations), the lowest p-value; 1 lists all features.
    seed
        Seed of the permutations, and of the halves and random panels of `panel_r2` and `random_r2`.

    Returns
    -------
    DataFrame, one row per feature, highest share first: modality, name, symbol, chromosome, start; share, which adds up
    to 1 over all features; score, -1 to 1, negative if high values of the feature lower the output; its p_value;
    share_by_masking (NaN after the first `masked`); and the mean contribution in each type, in units of the output:
    standard deviations of the protein's log-ratio, or logits.

    ``attrs`` has `explained`, the covariance of output and measured values by their variance; and the squared
    correlation, in half of the cells, of a ridge regression on the `PANEL` features of the highest share
    (`panel_r2`) and on as many random features (`random_r2`, `random_r2_sd`), chosen and fitted in the other half among
    those that the model reads.

    Raises
    ------
    SettingError
        A setting is out of range, the target is constant in the cells, the model does not predict it at all, or captum
        is not installed.
    """
    require(isinstance(steps, Integral) and steps > 0, f"steps must be a whole number above 0 (got {steps!r})")
    lowest = 1 / (1 + permutations)
    require(0 <= level <= 1, f"level must be between 0 and 1 (got {level}), e.g. 0.05")
    require(level >= lowest, f"{permutations} permutations give no p-value below {lowest:.2g}; raise level")
    network.to(device).eval()
    truth = _truth(network, cells, target, device, is_target)
    measured = np.flatnonzero(np.isfinite(truth))
    cells, truth = cells.subset(cells.rows[measured]), truth[measured]
    if not len(truth) or np.ptp(truth) == 0:
        raise SettingError(_why_constant(target, truth, labelled=is_target is not None))
    output, batch_size = _output(network, target), max(1, cells_at_once(network, device) // steps)
    read = partial(_inputs, target=target, rna_only=rna_only, device=device)
    contribution_nf, value_nf = _integrated_gradients(output, cells, target, read, batch_size, steps)
    explained = float(share(contribution_nf.sum(axis=1, keepdims=True), truth)[0])
    if explained <= 0:
        raise SettingError(f"the model does not predict {target.name} in these cells; nothing to explain")

    table = features.reset_index(drop=True)
    table["share"] = share(contribution_nf, truth) / explained
    table["score"] = _signs(contribution_nf, value_nf) * correlation(contribution_nf, truth)
    table["p_value"] = p_values(contribution_nf, truth, permutations, seed)
    hidden = _hidden(features, target, rna_only=rna_only)
    is_read = (features["modality"] == "rna").to_numpy() | inference.uses_proteins(network)
    usable = is_read & ~hidden & (np.ptp(value_nf, axis=0) > 0)
    panels = panel_scores(contribution_nf, value_nf, truth, usable, seed)
    table.attrs.update({"explained": explained, **panels})

    table = table[~hidden & (table["p_value"] <= level)].sort_values("share", ascending=False, kind="stable")
    first = table.index[:masked]
    table["share_by_masking"] = np.nan
    if len(first):
        without_nf = _masking(output, cells, read, first, batch_size)
        table.loc[first, "share_by_masking"] = share(without_nf, truth) / explained
    if types is not None:
        types = types[measured]
        for name in pd.unique(pd.Series(types).dropna()):
            table[f"mean in {name}"] = contribution_nf[types == name].mean(axis=0)[table.index]
    return table.reset_index(drop=True)


def _why_constant(target: Target, truth_n: np.ndarray, *, labelled: bool) -> str:
    """Return what an error says of a target that does not vary among the cells."""
    if target.protein is not None:
        return f"{target.name} is constant in all {len(truth_n)} cells where it was measured; nothing to explain"
    which, how = "all" if truth_n.any() else "none", "labelled" if labelled else "predicted to be"
    return f"{which} of the {len(truth_n)} cells are {how} {target.name}; give cells of this class and of others"


def _signs(contribution_nf: np.ndarray, value_nf: np.ndarray) -> np.ndarray:
    """Return whether high values of each feature raise the output (1), lower it (-1) or do neither (0), [f]."""
    return np.sign(np.nan_to_num((standardized(value_nf) * standardized(contribution_nf)).sum(axis=0)))


def _hidden(features: pd.DataFrame, target: Target, *, rna_only: bool) -> np.ndarray:
    """Return which features the model is not given: the protein that is explained, or all proteins; bool [f]."""
    is_protein = (features["modality"] != "rna").to_numpy()
    if rna_only:
        return is_protein
    hidden = np.zeros(len(features), dtype=bool)
    if target.protein is not None:
        hidden[np.flatnonzero(is_protein)[target.protein]] = True
    return hidden


def share(contribution_nf: np.ndarray, truth_n: np.ndarray) -> np.ndarray:
    """Return ``cov(contribution, truth) / var(truth)`` of each feature, [f]."""
    centered = truth_n - truth_n.mean()
    return centered @ contribution_nf / (centered @ centered)


def standardized(values_nf: np.ndarray) -> np.ndarray:
    """Return values [n, ...] with mean 0 and length 1 over the cells, 0 if constant."""
    centered = values_nf - values_nf.mean(axis=0)
    length = np.linalg.norm(centered, axis=0)
    return np.divide(centered, length, out=np.zeros_like(centered), where=length > 1e-12)


def correlation(contribution_nf: np.ndarray, truth_n: np.ndarray) -> np.ndarray:
    """Return the correlation of each feature's contribution with the measured values, [f]."""
    return standardized(truth_n) @ standardized(contribution_nf)


def p_values(contribution_nf: np.ndarray, truth_n: np.ndarray, permutations: int, seed: int) -> np.ndarray:
    """Return p-values [f]: how often the highest correlation of any feature reaches each one's if truth is permuted.

    Correlations, not shares: with these, one feature of large contributions would set the limit for all others.
    """
    rng = np.random.default_rng(seed)
    scaled_nf, scaled_n = standardized(contribution_nf), standardized(truth_n)
    highest = np.array([(rng.permutation(scaled_n) @ scaled_nf).max() for _ in range(permutations)])
    reached = (highest[:, None] >= scaled_n @ scaled_nf).sum(axis=0)
    return (1 + reached) / (1 + permutations)


def panel_scores(
    contribution_nf: np.ndarray, value_nf: np.ndarray, truth_n: np.ndarray, usable_f: np.ndarray, seed: int
) -> dict[str, float]:
    """Compare the features of the highest share with random ones, by regression of the truth on their values.

    Features are chosen, and the regression fitted, in a random half of the cells, and scored in the other: the squared
    correlation, 0 to 1; NaN if the truth is constant in a half, as of a class of very few cells.

    Parameters
    ----------
    usable_f
        [f] bool, the features that may be in a panel.
    """
    rng = np.random.default_rng(seed)
    order, half = rng.permutation(len(truth_n)), len(truth_n) // 2
    fit, test = order[:half], order[half:]
    if min(np.ptp(truth_n[fit]), np.ptp(truth_n[test])) == 0:
        return dict.fromkeys(("panel_r2", "random_r2", "random_r2_sd"), np.nan)
    usable = np.flatnonzero(usable_f)
    size = min(PANEL, len(usable))
    best = usable[np.argsort(-share(contribution_nf[fit], truth_n[fit])[usable], kind="stable")[:size]]

    def r2(panel: np.ndarray) -> float:
        mean, x = value_nf[fit][:, panel].mean(axis=0), value_nf[fit][:, panel]
        gram = (x - mean).T @ (x - mean) + _PENALTY * len(fit) * np.eye(size)
        weights = np.linalg.solve(gram, (x - mean).T @ (truth_n[fit] - truth_n[fit].mean()))
        predicted = (value_nf[test][:, panel] - mean) @ weights
        return float(standardized(predicted) @ standardized(truth_n[test])) ** 2

    random = [r2(rng.choice(usable, size, replace=False)) for _ in range(RANDOM_PANELS)]
    return {"panel_r2": r2(best), "random_r2": float(np.mean(random)), "random_r2_sd": float(np.std(random))}


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
    if isinstance(network, PretrainNetwork) and target.protein is not None:
        return partial(_rebuilt_protein, network, target.protein)
    return lambda inputs: network(inputs)[0][:, target.label]


def _rebuilt_protein(network: PretrainNetwork, protein: int, inputs: CellInputs) -> Tensor:
    """Return a protein, [n], as the network rebuilds it without its own value: from bottleneck or tokens."""
    sizes = inputs.rna.shape[1], inputs.protein.shape[1]
    hidden = torch.arange(sum(sizes), device=inputs.rna.device) == sizes[0] + protein
    return network.rebuild(inputs, hidden)[:, sizes[0] + protein]


def _inputs(batch: CellBatch, target: Target, device: torch.device, rna_only: bool = False) -> CellInputs:
    """Return the inputs of a batch without the protein that is explained, or without any."""
    inputs = CellInputs.of(batch).to(device)
    if target.protein is None and not rna_only:
        return inputs
    present = inputs.protein_present.clone()
    present[:, slice(None) if rna_only else target.protein] = False
    return inputs._replace(protein_present=present)


def _integrated_gradients(
    output: Callable[[CellInputs], Tensor],
    cells: CellDataset,
    target: Target,
    read: Callable[[CellBatch], CellInputs],
    batch_size: int,
    steps: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Return the contribution of each gene and protein in each cell, and their values, both [n, g + p]."""
    try:
        from captum.attr import IntegratedGradients
    except ImportError as error:
        raise missing_extra("explain", "integrated gradients need captum") from error

    def forward(values: Tensor, rna_present: Tensor, protein_present: Tensor, batch: Tensor) -> Tensor:
        rna, protein = values.split([rna_present.shape[1], protein_present.shape[1]], dim=1)
        return output(CellInputs(rna, rna_present, protein, protein_present, batch))

    gradients, parts, last_line = IntegratedGradients(forward), [], time.monotonic()
    for number, batch in enumerate(make_loader(cells, batch_size=batch_size)):
        if time.monotonic() - last_line > LINE_EVERY:
            log.info("%s: %d of %d cells explained", target.name, number * batch_size, len(cells))
            last_line = time.monotonic()
        inputs = read(batch)
        present = (inputs.rna_present, inputs.protein_present, inputs.batch)
        values = torch.cat([inputs.rna, inputs.protein], dim=1)
        contribution = gradients.attribute(values, additional_forward_args=present, n_steps=steps)
        parts.append(torch.stack([contribution.detach(), values]).cpu())
    contribution_nf, value_nf = torch.cat(parts, dim=1).double().numpy()
    return contribution_nf, value_nf


@torch.inference_mode()
def _masking(
    output: Callable[[CellInputs], Tensor],
    cells: CellDataset,
    read: Callable[[CellBatch], CellInputs],
    columns: pd.Index,
    batch_size: int,
) -> np.ndarray:
    """Return the output minus that without each of some features, [n, columns]."""
    parts = []
    for batch in make_loader(cells, batch_size=batch_size):
        inputs = read(batch)
        whole = output(inputs)
        parts.append(torch.stack([whole - output(_without(inputs, int(column))) for column in columns], dim=1).cpu())
    return torch.cat(parts).double().numpy()


def _without(inputs: CellInputs, column: int) -> CellInputs:
    n_genes = inputs.rna.shape[1]
    field, place = ("rna_present", column) if column < n_genes else ("protein_present", column - n_genes)
    present = getattr(inputs, field).clone()
    present[:, place] = False
    return inputs._replace(**{field: present})
