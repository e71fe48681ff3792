"""Run a trained network over cells: no gradients, cells in their order, results independent of the batches."""

from collections.abc import Callable

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from scfusionttt.data.loader import CellDataset, make_loader
from scfusionttt.nn.inputs import CellInputs
from scfusionttt.nn.networks import ClassifierNetwork, Network, PretrainNetwork, TransferNetwork
from scfusionttt.training.masking import inputs_of
from scfusionttt.training.memory import cells_at_once


def embed(network: Network, cells: CellDataset, device: torch.device, *, rna_only: bool = False) -> np.ndarray:
    """Return the fused representation, float32 [n, l]; with `rna_only` no protein is looked at."""
    rna_only = rna_only or isinstance(network, TransferNetwork)

    def read(inputs: CellInputs) -> Tensor:
        return network.backbone(inputs.without_proteins() if rna_only else inputs).z

    return _run(network, cells, device, read)


def probabilities(
    network: ClassifierNetwork, cells: CellDataset, device: torch.device
) -> tuple[np.ndarray, np.ndarray]:
    """Return the softmax of the class scores, float32 [n, c], and how usual each cell is, float32 [n]; all 0..1."""

    def read(inputs: CellInputs) -> Tensor:
        scores, fused = network(inputs)
        seen = fused.protein_visible
        by_rna = scores.new_ones(len(scores), dtype=torch.bool) if seen is None else ~seen.any(dim=1)
        usual = network.novelty.usual(network.novelty(fused.z), by_rna)
        return torch.cat([scores.softmax(dim=1), usual[:, None]], dim=1)

    told = _run(network, cells, device, read)
    return told[:, :-1], told[:, -1]


def rebuilt_proteins(network: PretrainNetwork, cells: CellDataset, device: torch.device) -> np.ndarray:
    """Return the scaled protein values rebuilt from z alone, float32 [n, p]."""
    return _run(network, cells, device, lambda inputs: network(inputs, from_tokens=False).protein_z)


def _run(
    network: Network, cells: CellDataset, device: torch.device, read: Callable[[CellInputs], Tensor]
) -> np.ndarray:
    network.to(device).eval()
    with torch.inference_mode():
        pieces, rows = [], []
        for batch in make_loader(cells, batch_size=cells_at_once(network, device)):
            pieces.append(read(CellInputs(*(part.to(device) for part in inputs_of(batch)))).cpu())
            rows.append(batch.row)
    result, came = torch.cat(pieces).numpy(), torch.cat(rows).numpy()
    # Cells of a store come as they lie on disk.
    return result if np.array_equal(came, cells.rows) else result[pd.Index(came).get_indexer(cells.rows)]
