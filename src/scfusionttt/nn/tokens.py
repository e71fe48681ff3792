"""From feature values to tokens, and from tokens back to values or to one vector per cell.

Shapes: n cells (batch), g genes, p proteins, f features, t tokens, k features per token, d width.
"""

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn


class CellInputs(NamedTuple):
    """The values of n cells in the model's features (g genes, p proteins) and which of them were measured."""

    rna: Tensor  # [n, g]
    rna_present: Tensor  # [n, g] bool
    protein: Tensor  # [n, p]
    protein_present: Tensor  # [n, p] bool
    batch: Tensor  # [n, keys] int64, level of the cell in each batch key, -1: none; no columns without batch keys

    @classmethod
    def of(cls, batch: Any) -> "CellInputs":
        """Return the fields of a batch that the networks read."""
        return cls(*(getattr(batch, name) for name in cls._fields))

    def to(self, device: torch.device) -> "CellInputs":
        """Return the cells on a device."""
        return CellInputs(*(part.to(device) for part in self))

    def without_proteins(self) -> "CellInputs":
        """Return the cells as if only their RNA had been measured."""
        return self._replace(protein_present=torch.zeros_like(self.protein_present))

    def without_batches(self) -> "CellInputs":
        """Return the cells as if they were of no known batch, so that no effect is removed."""
        return self._replace(batch=torch.full_like(self.batch, -1))


class VisibleTokens(NamedTuple):
    """Which tokens of n cells the encoders may see, and which are removed from the sequence.

    Without positions, a hidden token stays in the sequence as an absent one.
    """

    rna: Tensor  # [n, t] bool
    protein: Tensor  # [n, p] bool
    rna_positions: Tensor | None = None  # [n, u] int64, the tokens that are not removed, in order
    protein_positions: Tensor | None = None  # [n, q] int64

    @classmethod
    def all_but(cls, rna: Tensor, protein: Tensor, n_cells: int) -> "VisibleTokens":
        """Hide the tokens that are true in `rna` [t] and `protein` [p] in all cells, and show the others."""
        shown = [(~hidden).expand(n_cells, -1) for hidden in (rna, protein)]
        kept = [
            None if hidden.all() or not hidden.any() else (~hidden).nonzero()[:, 0].expand(n_cells, -1)
            for hidden in (rna, protein)
        ]  # as in training, a sequence keeps at least one token
        return cls(*shown, *kept)

    def rows(self, rows: slice) -> "VisibleTokens":
        """Return those of some cells."""
        rna, protein = (None if part is None else part[rows] for part in self[2:])
        return VisibleTokens(self.rna[rows], self.protein[rows], rna, protein)


class Tokens(NamedTuple):
    """Tokens of one modality in n cells."""

    values: Tensor  # [n, u, d]
    present: Tensor  # [n, u] bool
    positions: Tensor | None = None  # [n, u] int64, place of each among all t tokens; None: all, in order
    summary: Tensor | None = None  # [n, d] token of the whole cell, if the readout needs one

    @property
    def sequence(self) -> tuple[Tensor, Tensor]:
        """What a mixer reads, [n, u, d] and [n, u]: the tokens and, last, so that it has read them all, the summary."""
        if self.summary is None:
            return self.values, self.present
        present = nn.functional.pad(self.present, (0, 1), value=True)
        return torch.cat([self.values, self.summary[:, None]], dim=1), present

    def with_sequence(self, values: Tensor) -> "Tokens":
        """Return the tokens with values of the shape of `sequence`."""
        if self.summary is None:
            return self._replace(values=values)
        return self._replace(values=values[:, :-1], summary=values[:, -1])

    def take(self, every: Tensor) -> Tensor:
        """Return the rows [n, u, d] of `every` token [n, t, d] that belong to these."""
        return every if self.positions is None else at_positions(every, self.positions)


def at_positions(every: Tensor, positions: Tensor) -> Tensor:
    """Return the rows [n, u, ...] of every token [n, t, ...] at positions [n, u]."""
    rows = torch.arange(len(every), device=every.device)[:, None] * every.shape[1] + positions
    return every.flatten(0, 1).index_select(0, rows.flatten()).unflatten(0, positions.shape)


class FeatureEmbedding(nn.Module):
    """A token is the value-weighted sum of the vectors of `patch` neighbouring features, plus a position.

    Absent features are left out of the sum; a token without any present feature is absent itself.
    """

    def __init__(self, n_features: int, *, patch: int, width: int) -> None:
        super().__init__()
        self.n_features = n_features
        self.patch = patch
        self.n_tokens = math.ceil(n_features / patch)
        self.vectors = nn.Parameter(torch.randn(self.n_tokens, patch, width) / math.sqrt(patch))
        self.position = nn.Parameter(0.02 * torch.randn(self.n_tokens, width))

    def forward(self, values: Tensor, present: Tensor, positions: Tensor | None = None) -> Tokens:
        """Embed the values [n, f] that are `present` [n, f]; with `positions` [n, u], only these tokens."""
        values_ntk = self.patched(torch.where(present, values, 0.0))
        tokens_tnd = torch.baddbmm(self.position[:, None], values_ntk.transpose(0, 1), self.vectors)
        token_present = self.patched(present).any(dim=-1)
        if positions is None:
            # Without a copy now, each of the following layers would make one.
            return Tokens(tokens_tnd.transpose(0, 1).contiguous(), token_present)
        rows = positions * len(values) + torch.arange(len(values), device=values.device)[:, None]
        tokens = tokens_tnd.flatten(0, 1).index_select(0, rows.flatten()).unflatten(0, positions.shape)
        return Tokens(tokens, at_positions(token_present, positions), positions)

    def per_feature(self, tokens: Tensor) -> Tensor:
        """Repeat the values of tokens [n, t] for each of their features, [n, f]."""
        return tokens.repeat_interleave(self.patch, dim=1)[:, : self.n_features]

    def patched(self, features: Tensor) -> Tensor:
        """Split [n, f] into tokens [n, t, k]; the last one is padded with zeros (False)."""
        gap = self.n_tokens * self.patch - self.n_features
        return nn.functional.pad(features, (0, gap)).unflatten(1, (self.n_tokens, self.patch))


class FeatureReadout(nn.Module):
    """Map each token linearly to the values of its features."""

    def __init__(self, n_features: int, *, patch: int, width: int) -> None:
        super().__init__()
        self.n_features = n_features
        n_tokens = math.ceil(n_features / patch)
        self.vectors = nn.Parameter(torch.randn(n_tokens, patch, width) / math.sqrt(width))
        self.bias = nn.Parameter(torch.zeros(n_tokens, patch))

    def forward(self, tokens: Tensor) -> Tensor:
        """Map tokens [n, t, d] to values [n, f]."""
        values_ntk = torch.einsum("ntd,tkd->ntk", tokens, self.vectors) + self.bias
        return values_ntk.flatten(1)[:, : self.n_features]


def masked_mean(tokens: Tokens) -> Tensor:
    """Return the mean of the present tokens, zero without any, [n, d]."""
    weight = tokens.present.to(tokens.values.dtype)
    return torch.einsum("ntd,nt->nd", tokens.values, weight) / weight.sum(dim=1, keepdim=True).clamp(min=1)


class SlotPool(nn.Module):
    """Learned weighted sums over the tokens, one per slot; the first slot starts as their mean.

    Unlike a mean, a weight per token and slot distinguishes the tokens, at a cost linear in their number. Sums are
    scaled by tokens / present tokens, so that absent tokens do not shrink them.
    """

    def __init__(self, n_tokens: int, width: int, n_slots: int) -> None:
        super().__init__()
        weights = torch.randn(n_slots, n_tokens) / math.sqrt(n_tokens)
        weights[0] = 1 / n_tokens
        self.weights = nn.Parameter(weights)
        self.n_out = n_slots * width

    def forward(self, tokens: Tokens) -> Tensor:
        """Pool tokens to [n, slots * d]."""
        scale_n = self.weights.shape[1] / tokens.present.sum(dim=1).clamp(min=1)
        present = tokens.present * scale_n[:, None]
        if tokens.positions is None:
            weights_nsu = present[:, None] * self.weights
        else:
            weights_nsu = (present[..., None] * nn.functional.embedding(tokens.positions, self.weights.T)).mT
        return (weights_nsu @ tokens.values).flatten(1)
