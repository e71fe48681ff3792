"""The measured values as they are, a few numbers of each cell: what stands beside what the network makes of them."""

import torch
from torch import Tensor, nn

from scfusionttt.config import NetworkConfig


class PlainView(nn.Module):
    """Principal components of a cell's genes, and its proteins; set after pretraining, not learned (0 until then).

    A bottleneck keeps what most cells share; in a small data set it lets go of what tells a few of them apart. A linear
    view beside a deep one keeps it (Cheng et al., arXiv 1606.07792). A protein that was not measured is told from the
    bottleneck and the components by a line.
    """

    axes: Tensor  # [g, k] principal axes; components spread by 1, all together
    protein_scale: Tensor  # scalar; so do proteins
    fill: Tensor  # [l + k, p]
    fill_bias: Tensor  # [p]
    reach: Tensor  # scalar, weight of the view in the representation

    def __init__(self, n_genes: int, n_proteins: int, n_bottleneck: int, config: NetworkConfig) -> None:
        super().__init__()
        self.n_components, self.n_proteins = max(config.components, config.skip_components), n_proteins
        self.register_buffer("axes", torch.zeros(n_genes, self.n_components))
        self.register_buffer("protein_scale", torch.zeros(()))
        self.register_buffer("fill", torch.zeros(n_bottleneck + self.n_components, n_proteins))
        self.register_buffer("fill_bias", torch.zeros(n_proteins))
        self.register_buffer("reach", torch.zeros(()))

    def forward(self, bottleneck: Tensor, genes: Tensor, proteins: Tensor, protein_seen: Tensor) -> Tensor:
        """Map genes [n, g], 0 where not seen, and proteins [n, p] to components and proteins [n, k + p]."""
        components = genes @ self.axes
        told = torch.cat([bottleneck, components], dim=1) @ self.fill + self.fill_bias
        return torch.cat([components, self.protein_scale * torch.where(protein_seen, proteins, told)], dim=1)

    def first(self, view: Tensor, n_components: int) -> Tensor:
        """Return the first components and all proteins of a view [n, k + p]."""
        return torch.cat([view[:, :n_components], view[:, self.n_components :]], dim=1)
