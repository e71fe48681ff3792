"""After pretraining: fit the correction of batch effects, and later extend it to the batches of a query."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from scfusionttt.data.kinds import evenly_drawn, kinds
from scfusionttt.data.loader import CellDataset
from scfusionttt.fitting.sample import Sample
from scfusionttt.inference import read_cells, visible_inputs
from scfusionttt.nn.backbone import FusionBackbone
from scfusionttt.nn.correction import BatchCorrection, Latent, Whitened
from scfusionttt.nn.networks import Network
from scfusionttt.nn.tokens import CellInputs

#: Cells per kind, and most kinds; Harmony's defaults.
CELLS_PER_KIND, MOST_KINDS = 30, 100
#: Most cells to fit to; more change little.
MOST_CELLS = 50_000
#: Cells whose distances to the landmarks are computed together.
CELLS_AT_ONCE = 4096
#: Penalty of a shift, relative to the cells of the batch that a kind would have if batches had the same composition.
RIDGE_PENALTY = 0.2
#: Least variance of a protein as RNA predicts it in a batch without proteins, relative to that of its measured values.
LEAST_PREDICTED = 0.25
#: Steps of estimating the shift of most cells, to which the penalty pulls; each leaves a sixth of what is missing.
COMMON_SHIFT_STEPS = 4
#: Steps of assigning a query's cells to kinds and estimating the shifts of its batches.
QUERY_STEPS = 10
#: Longest shift of a batch, relative to the median over its cells.
LONGEST_SHIFT = 1.0
#: Mean squared length of what other proportions of subtypes add to the shifts of a query, relative to the variance
#: within kinds. Chosen on simulated donors and on four real pairs of batches.
SUBTYPE_VARIANCE = 0.1


def n_kinds(n_cells: int) -> int:
    """Return the number of kinds that a correction fitted to this many cells has."""
    return int(np.clip(round(min(n_cells, MOST_CELLS) / CELLS_PER_KIND), 2, MOST_KINDS))


def fit_batch_correction(
    network: Network, correction: BatchCorrection, cells: CellDataset, device: torch.device, *, seed: int
) -> None:
    """Set the centroids of the kinds and their shifts in each batch, by Harmony on the latent. Needs no labels.

    Harmony alone merges a type that only a small batch has with others; see :func:`_shortened`.

    Parameters
    ----------
    network
        Pretrained, after latent scaling and the fit of the PCA skip.
    correction
        Its correction.
    cells
        The cells of pretraining; `seed` draws a sample of many.
    """
    cells = cells.subset(cells.rows[evenly_drawn(cells.batches[cells.rows], MOST_CELLS, seed)])
    values, has_protein = _read(network, cells, device)
    if not np.isfinite(values).all():
        return
    batch = cells.batches[cells.rows]
    kept = np.ones(values.shape[1], dtype=np.float32)
    n_proteins = has_protein.shape[1]
    kept[len(kept) - n_proteins :] = _alike_everywhere(values[:, len(kept) - n_proteins :], has_protein, batch)
    values *= kept
    z = network.backbone.cpu().latent(torch.from_numpy(values)).numpy()
    degrees = torch.from_numpy(_degrees(correction, z, batch, seed)).double()
    correction.kept.copy_(torch.from_numpy(kept))
    correction.stretch.fill_(1)
    correction.rna_only.zero_()
    latent = network.backbone.latent
    _solve(correction, torch.from_numpy(values).double(), degrees, batch, latent)
    _set_stretch(correction, torch.from_numpy(values), has_protein, batch, latent)

    def corrected(values: np.ndarray, has_protein: np.ndarray, batch: np.ndarray) -> Tensor:
        by_rna = torch.from_numpy(~has_protein.any(axis=1))
        return latent(correction.cpu()(torch.from_numpy(values), torch.from_numpy(batch), latent, by_rna))

    drawn = _set_landmarks(correction, corrected(values, has_protein, batch), seed).numpy()
    if has_protein.shape[1]:
        by_rna = _read(network, cells.subset(cells.rows[drawn]), device, rna_only=True)
        network.cpu()
        correction.rna_only[np.unique(batch[_lacks_proteins(has_protein, batch), 0])] = 1
        known = torch.from_numpy(has_protein[drawn].any(axis=1))
        _set_rna_landmarks(correction, corrected(*by_rna, batch[drawn]), known, network.backbone.whitened)


def fit_kinds(backbone: FusionBackbone, correction: BatchCorrection, sample: Sample, *, seed: int) -> None:
    """Set the kinds of cells of a model without batches, for :func:`fit_new_batches`. Needs no labels.

    Call it after latent scaling and the fit of the PCA skip. Without enough cells that differ, there are no kinds.
    """
    bottleneck, genes, proteins = map(torch.from_numpy, (sample.bottleneck, sample.genes, sample.proteins))
    backbone.cpu()
    parts = backbone.components(genes), proteins.nan_to_num()
    values = backbone.values(bottleneck, *parts, ~proteins.isnan())
    z = backbone.latent(values)
    if len(z.unique(dim=0)) < len(correction.centroids):
        return
    degrees = torch.from_numpy(_degrees(correction, z.numpy(), sample.batches, seed)).double()
    _solve(correction, values.double(), degrees, sample.batches, backbone.latent)
    fit_landmarks(backbone, correction, sample, seed=seed)


def fit_landmarks(backbone: FusionBackbone, correction: BatchCorrection, sample: Sample, *, seed: int) -> None:
    """Set the cells that p-values compare with; kinds and the effects of batches stay. `seed` draws the landmarks."""
    genes, proteins, batches = map(torch.from_numpy, (sample.genes, sample.proteins, sample.batches))
    components, measured = backbone.cpu().components(genes), ~proteins.isnan()

    def z(bottleneck: np.ndarray, visible: Tensor) -> Tensor:
        parts = torch.from_numpy(bottleneck), components, proteins.nan_to_num()
        return backbone.without_batch_effects(*parts, visible, batches)[0]

    drawn = _set_landmarks(correction, z(sample.bottleneck, measured), seed)
    if proteins.shape[1]:
        by_rna = z(sample.by_rna, torch.zeros_like(measured))[drawn]
        _set_rna_landmarks(correction, by_rna, measured[drawn].any(dim=1), backbone.whitened)


def _degrees(correction: BatchCorrection, z: np.ndarray, batch: np.ndarray, seed: int) -> np.ndarray:
    """Return to which degree cells z [n, l], with levels [n, keys], belong to each kind, [n, k]."""
    return kinds(z, batch, len(correction.centroids), seed=seed, sigma=correction.SIGMA)


def _set_landmarks(correction: BatchCorrection, z: Tensor, seed: int) -> Tensor:
    """Draw landmarks from corrected latent vectors [n, l], and set the null distribution of the distances to them.

    Returns the positions of the landmarks among the cells.
    """
    drawn = torch.randperm(len(z), generator=torch.Generator().manual_seed(seed))[: correction.N_LANDMARKS]
    correction.landmarks.fill_(torch.inf)  # without those of an earlier fit to more cells
    correction.landmarks[: len(drawn)] = z[drawn]
    itself = torch.full((len(z),), -1)
    itself[drawn] = torch.arange(len(drawn))
    pairs = zip(z.split(CELLS_AT_ONCE), itself.split(CELLS_AT_ONCE), strict=True)
    distances = torch.cat([correction.distance(*pair) for pair in pairs]).numpy()
    _set_quantiles(correction.distances, distances)
    return drawn


def _set_rna_landmarks(correction: BatchCorrection, z: Tensor, has_protein: Tensor, whitened: Whitened) -> None:
    """Set the landmarks by RNA alone, given their corrected latent vectors [r, l], and the null distribution of z."""
    rows = torch.nonzero(has_protein).ravel()
    correction.rna_landmarks.fill_(torch.inf)
    correction.rna_landmarks[rows] = z[rows]
    correction.set_matching_distance(whitened)
    _set_quantiles(correction.rna_distances, correction.distance(z, torch.arange(len(z))).numpy())


def _set_quantiles(null: Tensor, distances: np.ndarray) -> None:
    null.copy_(torch.from_numpy(np.quantile(distances, np.linspace(0, 1, len(null)))))


def fit_new_batches(
    network: Network,
    correction: BatchCorrection,
    cells: CellDataset,
    new: Sequence[int],
    device: torch.device,
    *,
    seed: int,
) -> None:
    """Set the shifts of the levels `new` from cells of a query, given the centroids, which stay (Symphony's idea).

    Cells are assigned to kinds and the shifts are estimated in turns. Cells of batches without proteins are moved away
    from their kinds; see :func:`_set_stretch`.

    Parameters
    ----------
    network
        Trained, with the correction.
    correction
        Its correction, with a row of shifts for each new level.
    cells
        The cells of the query; `seed` draws a sample of many.
    new
        Levels of the first batch key.
    """
    cells = cells.subset(cells.rows[np.isin(cells.batches[cells.rows, 0], new)])
    if not len(cells):
        return
    cells = cells.subset(cells.rows[evenly_drawn(cells.batches[cells.rows], MOST_CELLS, seed)])
    read, has_protein = _read(network, cells, device)
    latent, batch = network.cpu().backbone.latent, cells.batches[cells.rows]
    others, by_rna = np.where(np.arange(batch.shape[1]) == 0, -1, batch), ~has_protein.any(axis=1)
    # The effects of other keys are known, and removed in addition.
    values = correction(*map(torch.from_numpy, (read, others)), latent, torch.from_numpy(by_rna))
    for level in new:
        correction.shifts[level] = _new_shift(correction, values[batch[:, 0] == level], latent)
    _set_stretch(correction, values, has_protein, batch[:, :1], latent, _landmark_spread(correction, latent))


def _new_shift(correction: BatchCorrection, values: Tensor, latent: Latent) -> Tensor:
    """Return the shift of every kind [k, m] in a batch with these values [n, m]."""
    expected = len(values) * correction.counts / correction.counts.sum()
    shift, z = torch.zeros_like(correction.centroids), latent(values)
    for _ in range(QUERY_STEPS):
        degrees = correction.degrees(z, latent(correction.centroids + shift))
        n_cells = degrees.sum(dim=0)
        total = degrees.T @ values
        between = (n_cells * latent(total / n_cells.clamp(min=1e-6)[:, None]).square().sum(dim=1)).sum()
        shift = (total - n_cells[:, None] * correction.centroids) / (n_cells + RIDGE_PENALTY * expected + 1e-6)[:, None]
        error = SUBTYPE_VARIANCE * (z.square().sum() - between) / len(z)
        shift = _shrunk(_shortened(shift, n_cells, latent), n_cells, latent, error)
    return shift


def _shortened(shift: Tensor, n_cells: Tensor, latent: Latent) -> Tensor:
    """Return a batch's shift of each kind [k, m], given its cells in them [k], no longer than that of most cells.

    A batch adds about as much to one kind as to another: a longer shift belongs to cells without a counterpart in the
    other batches, which it would move to those of another type.
    """
    length = latent(shift).norm(dim=1)
    longest = LONGEST_SHIFT * _median(length[:, None], n_cells)
    return shift * (longest / length.clamp(min=1e-12)).clamp(max=1)[:, None]


def _shrunk(shift: Tensor, n_cells: Tensor, latent: Latent, error: Tensor) -> Tensor:
    """Return a batch's shift of each kind [k, m], given its cells in them [k], nearer to the shift of most cells.

    Shifts of kinds also differ because the batch has subtypes in other proportions, which a shift of its own for each
    kind would hide. Of a mean squared difference as large as `error`, that of the proportions, half is kept.
    """
    median = _median(shift, n_cells)
    square = (n_cells * latent(shift - median).square().sum(dim=1)).sum() / n_cells.sum()
    return median + square / (square + error).clamp(min=1e-12) * (shift - median)


def _median(values: Tensor, weight: Tensor) -> Tensor:
    """Return the weighted median of each column of values [k, m], given the weights of the rows [k], [m]."""
    order = values.argsort(dim=0)
    place = (weight[order].cumsum(dim=0) < weight.sum() / 2).sum(dim=0, keepdim=True)
    return values.gather(0, order.gather(0, place))[0]


def _read(
    network: Network, cells: CellDataset, device: torch.device, *, rna_only: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Return bottleneck and PCA skip with the effects of the batches [n, m], and which proteins were read [n, p].

    Without a PCA skip there are no proteins in the latent, and p is 0.
    """

    def read(inputs: CellInputs) -> Tensor:
        inputs = visible_inputs(network, inputs, rna_only=rna_only)
        fused = network.backbone(inputs.without_batches())
        if fused.skip is None:
            return fused.bottleneck
        return torch.cat([fused.bottleneck, fused.skip, inputs.protein_present], dim=1)

    values = read_cells(network, cells, device, read)
    n_proteins = 0 if network.backbone.view is None else network.backbone.view.n_proteins
    return values[:, : values.shape[1] - n_proteins], values[:, values.shape[1] - n_proteins :] > 0


def _alike_everywhere(proteins: np.ndarray, has_protein: np.ndarray, batch: np.ndarray) -> np.ndarray:
    """Return which proteins [p] do not tell batches that lack them from the others, given their values [n, p].

    Most cells of every batch have them. In batches without any protein, values predicted from RNA stand for them, and
    may not vary much less than measured ones: else such cells would lie together, in the middle of each kind.
    """
    has_some = pd.Series(has_protein.any(axis=1)).groupby([*batch.T]).transform("any").to_numpy()
    shares = pd.DataFrame(has_protein[has_some]).groupby([*batch[has_some].T]).mean()
    alike = (shares > 0.5).all(axis=0).to_numpy()
    if has_some.all():
        return alike
    measured = np.ma.masked_array(proteins, mask=~has_protein).var(axis=0).filled(0)
    return alike & (proteins[~has_some].var(axis=0) > LEAST_PREDICTED * measured)


def _solve(
    correction: BatchCorrection, values: Tensor, degrees: Tensor, batch: np.ndarray, latent: Latent
) -> None:  # fmt: skip
    """Set centroids and shifts by the ridge regression of the values [n, m] on the batches, in each kind.

    The penalty brings the shift of a kind nearer to that of most of the batch's cells: with a penalty on the shifts
    themselves, a part of what a batch adds to all of its cells would stay. `degrees` [n, k] are those to which cells
    belong to the kinds, `batch` [n, keys] their levels.
    """
    n_levels = len(correction.shifts)
    design = torch.cat([torch.ones(len(values), 1), _one_hot(batch, n_levels)], dim=1).double()
    counts = degrees.sum(dim=0)
    gram = torch.einsum("nk,ni,nj->kij", degrees, design, design)
    target = torch.stack([(degrees * column[:, None]).T @ values for column in design.T], dim=1)
    penalty = RIDGE_PENALTY * counts[:, None] * torch.cat([torch.zeros(1), design[:, 1:].mean(dim=0)])
    factors = torch.linalg.lu_factor(gram + torch.diag_embed(penalty + 1e-6))
    n_cells = torch.einsum("nb,nk->bk", design[:, 1:], degrees)
    common = values.new_zeros(1 + n_levels, values.shape[1])
    for _ in range(COMMON_SHIFT_STEPS):
        solved = torch.linalg.lu_solve(*factors, target + penalty[:, :, None] * common)
        for level, n in enumerate(n_cells, start=1):
            common[level] = _median(solved[:, level], n)
    solved, n_cells = solved.float(), n_cells.float()
    correction.centroids.copy_(solved[:, 0])
    for level, n in enumerate(n_cells):
        correction.shifts[level] = _shortened(solved[:, 1 + level], n, latent)
    correction.counts.copy_(counts)


def _set_stretch(
    correction: BatchCorrection, values: Tensor, has_protein: np.ndarray, batch: np.ndarray, latent: Latent,
    spread: Tensor | None = None,
) -> None:  # fmt: skip
    """Set the factor by which cells of batches without proteins are moved away from their kinds.

    Values predicted from RNA vary less than measured ones: such cells would lie in the middle of their kinds, as the
    nearest neighbours of all others. Moved, they lie as far from their kinds as those: as the cells of the other
    batches do, or as `spread` [k] says.
    """
    complete = ~_lacks_proteins(has_protein, batch)
    if not has_protein.shape[1] or complete.all():
        return
    degrees, square = _from_kinds(correction, values, batch, latent)
    spread = _spread(degrees[complete], square[complete]) if spread is None else spread
    for level in np.unique(batch[~complete, 0]):
        rows = torch.from_numpy(batch[:, 0] == level)
        stretch = (degrees[rows] @ spread).sum() / square[rows].sum().clamp(min=1e-12)
        correction.stretch[level] = stretch.sqrt().clamp(min=1)


def _lacks_proteins(has_protein: np.ndarray, batch: np.ndarray) -> np.ndarray:
    """Return which cells are of a batch of the first key in which no cell has proteins, [n]."""
    return ~pd.Series(has_protein.any(axis=1)).groupby(batch[:, 0]).transform("any").to_numpy()


def _from_kinds(
    correction: BatchCorrection, values: Tensor, batch: np.ndarray, latent: Latent
) -> tuple[Tensor, Tensor]:
    """Return to which degree cells belong to the kinds of their batches [n, k], and their squared distances [n]."""
    degrees, square = values.new_zeros(len(values), len(correction.counts)), values.new_zeros(len(values))
    for level, rows, of_rows in correction.by_batch(values, torch.from_numpy(batch), latent):
        degrees[rows] = of_rows
        center = of_rows @ (correction.centroids + correction.shift(level))
        square[rows] = latent(values[rows] - center).square().sum(dim=1)
    return degrees, square


def _spread(degrees: Tensor, square: Tensor) -> Tensor:
    """Return the mean squared distance of cells from each kind, [k]."""
    return degrees.T @ square / degrees.sum(dim=0).clamp(min=1e-6)


def _landmark_spread(correction: BatchCorrection, latent: Latent) -> Tensor:
    """Return the mean squared distance of the landmarks from each kind, [k]."""
    z, centroids = correction.landmarks[correction.landmarks.isfinite().all(dim=1)], latent(correction.centroids)
    degrees = correction.degrees(z, centroids)
    return _spread(degrees, (z - degrees @ centroids).square().sum(dim=1))


def _one_hot(batch: np.ndarray, n_levels: int) -> Tensor:
    """Return which levels each cell has, [n, b], of its level in each key [n, keys]."""
    return torch.from_numpy((batch[:, None] == np.arange(n_levels)[:, None]).any(axis=2))
