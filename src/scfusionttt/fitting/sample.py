"""A sample of the cells, passed through the network once, for most of what is fitted after training."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from scfusionttt.data.loader import CellDataset
from scfusionttt.data.preprocess import sample_size
from scfusionttt.inference import read_cells
from scfusionttt.nn.networks import Network
from scfusionttt.nn.tokens import CellInputs


@dataclass(frozen=True)
class Sample:
    """Cells as the network reads them: n cells, g genes, p proteins, l units of the bottleneck; values are float32.

    Attributes
    ----------
    bottleneck, by_rna
        The bottleneck as measured and by RNA alone, [n, l]; the same in a model without proteins.
    genes
        Scaled values, [n, g].
    proteins
        Scaled values, NaN where not measured, [n, p].
    batches
        Levels of the batch keys, [n, keys].
    """

    bottleneck: np.ndarray
    by_rna: np.ndarray
    genes: np.ndarray
    proteins: np.ndarray
    batches: np.ndarray

    @property
    def is_finite(self) -> bool:
        """Whether nothing went wrong in training."""
        return bool(np.isfinite(self.bottleneck).all() and np.isfinite(self.genes).all())


def read_sample(network: Network, cells: CellDataset, device: torch.device, *, seed: int) -> Sample:
    """Pass cells of training through the network; `seed` draws a sample of many."""
    cells = cells.drawn(sample_size(network.backbone.rna_encoder.embedding.n_features), seed)

    def read(inputs: CellInputs) -> Tensor:
        bottleneck = by_rna = network.backbone(inputs).bottleneck
        if inputs.protein.shape[1]:
            by_rna = network.backbone(inputs.without_proteins()).bottleneck
        proteins = torch.where(inputs.protein_present, inputs.protein, torch.nan)
        parts = [bottleneck, by_rna, inputs.rna, proteins]
        widths[:] = [part.shape[1] for part in parts]
        return torch.cat(parts, dim=1)

    widths: list[int] = []
    values = read_cells(network, cells, device, read)
    bottleneck, by_rna, genes, proteins = map(np.ascontiguousarray, np.split(values, np.cumsum(widths)[:-1], axis=1))
    return Sample(bottleneck, by_rna, genes, proteins, cells.batches[cells.rows])
