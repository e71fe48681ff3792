"""What the networks read."""

from typing import NamedTuple

import torch
from torch import Tensor


class CellInputs(NamedTuple):
    """The values of n cells in the model's features (g genes, p proteins) and which of them were measured."""

    rna: Tensor  # [n, g]
    rna_present: Tensor  # [n, g] bool
    protein: Tensor  # [n, p]
    protein_present: Tensor  # [n, p] bool

    def without_proteins(self) -> "CellInputs":
        """Return the cells as if only their RNA had been measured."""
        return self._replace(protein_present=torch.zeros_like(self.protein_present))


class VisibleTokens(NamedTuple):
    """Which tokens the encoders may see; None: all that are there."""

    rna: Tensor | None = None  # [n, t] bool
    protein: Tensor | None = None  # [n, p] bool
