"""Draw the tokens that a training step hides, on the CPU, so that every device hides the same."""

import torch
from torch import Tensor

from scfusionttt.nn.tokens import VisibleTokens


def step_generator(seed: int, step: int, *, validation: bool = False) -> torch.Generator:
    """Return the generator of a step, from the seed and the step alone, so that a resumed run repeats it."""
    return torch.Generator().manual_seed((seed * 1_000_003 + step) * 2 + validation)


def visible_tokens(
    n_cells: int,
    n_rna_tokens: int,
    n_proteins: int,
    *,
    mask_ratio: float,
    protein_mask_ratio: float,
    hide_protein: float,
    least_hidden: int = 0,
    generator: torch.Generator,
    device: torch.device,
) -> VisibleTokens:
    """Hide these fractions of each cell's RNA and protein tokens, and all proteins in a fraction of the cells.

    Hidden tokens are removed from the sequence, the same number in each cell; where all proteins are hidden, the
    remaining ones stay in it as absent. Of a modality of which anything is hidden, at least `least_hidden` tokens are.
    """
    rna = _keep(n_cells, n_rna_tokens, mask_ratio, least_hidden, generator)
    protein = _keep(n_cells, n_proteins, protein_mask_ratio, least_hidden, generator)
    without = torch.rand(n_cells, generator=generator) < hide_protein
    positions = (_positions(kept, device) for kept in (rna, protein))
    return VisibleTokens(rna.to(device), (protein & ~without[:, None]).to(device), *positions)


def masked_mse(predicted: Tensor, target: Tensor, where: Tensor, total: Tensor) -> Tensor:
    """Sum the squared error over the entries selected by `where`, and divide by `total` entries (0 if none)."""
    error = torch.where(where, predicted - target, 0.0)  # not a product: NaN * 0 is NaN
    return error.square().sum() / total.clamp(min=1)


def _keep(n: int, t: int, mask_ratio: float, least: int, generator: torch.Generator) -> Tensor:
    rank = torch.rand(n, t, generator=generator).argsort(dim=1).argsort(dim=1)
    n_hidden = max(round(mask_ratio * t), least) if mask_ratio else 0
    return rank >= min(n_hidden, max(t - 1, 0))  # a sequence has at least one token


def _positions(kept: Tensor, device: torch.device) -> Tensor | None:
    """Return the positions [n, u] of the tokens kept [n, t], as many in each row, in order; None if all are kept."""
    return None if kept.all() else kept.nonzero()[:, 1].view(len(kept), -1).to(device)
