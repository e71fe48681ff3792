"""Run a trained network over cells: no gradients, cells in their order, results independent of the batches."""

from collections.abc import Callable

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from scfusionttt.data.loader import CellDataset, make_loader
from scfusionttt.errors import SettingError
from scfusionttt.nn.layers import inner_losses
from scfusionttt.nn.networks import ClassifierNetwork, Network, PretrainNetwork, TransferNetwork
from scfusionttt.nn.tokens import CellInputs
from scfusionttt.training import distributed
from scfusionttt.training.memory import cells_at_once


def embed(network: Network, cells: CellDataset, device: torch.device, *, rna_only: bool = False) -> np.ndarray:
    """Return the fused representation, float32 [n, l]; with `rna_only` no protein is looked at."""
    return read_cells(network, cells, device, lambda inputs: network.backbone.measured(_z(network, inputs, rna_only)))


def embed_for_heads(
    network: Network, cells: CellDataset, device: torch.device, *, rna_only: bool = False
) -> np.ndarray:
    """Return the same as heads read it: its parts as they are."""
    return read_cells(network, cells, device, lambda inputs: _z(network, inputs, rna_only))


def looks_at_proteins(network: Network) -> bool:
    """Whether measured proteins change what the network makes of a cell."""
    return network.backbone.protein_encoder is not None and not isinstance(network, TransferNetwork)


def _z(network: Network, inputs: CellInputs, rna_only: bool) -> Tensor:
    rna_only = rna_only or not looks_at_proteins(network)
    return network.backbone(inputs.without_proteins() if rna_only else inputs).z


def embed_and_surprise(network: Network, cells: CellDataset, device: torch.device) -> tuple[np.ndarray, np.ndarray]:
    """Return the fused representation [n, l], and the inner loss of each RNA token [n, t], mean of the layers.

    Only the RNA encoder's TTT layers are read: they see nothing but RNA, whether or not proteins were measured.

    Raises
    ------
    SettingError
        The network has no TTT layer in its RNA encoder.
    """

    def read(inputs: CellInputs) -> Tensor:
        with inner_losses(network.backbone.rna_encoder) as losses:
            z = network.backbone.measured(_z(network, inputs, rna_only=False))
        if not losses:
            raise SettingError("surprise is the inner loss of TTT layers, and this model's RNA encoder has none")
        return torch.cat([z, torch.stack(losses).mean(dim=0)], dim=1)

    both = read_cells(network, cells, device, read)
    return both[:, : network.backbone.n_latent], both[:, network.backbone.n_latent :]


def class_scores(network: ClassifierNetwork, cells: CellDataset, device: torch.device) -> np.ndarray:
    """Return the class scores (logits), float32 [n, c]."""
    return read_cells(network, cells, device, lambda inputs: network(inputs)[0])


def probabilities(
    network: ClassifierNetwork, cells: CellDataset, device: torch.device
) -> tuple[np.ndarray, np.ndarray]:
    """Return the softmax of the class scores, float32 [n, c], and how usual each cell is, float32 [n]; all 0..1."""

    def read(inputs: CellInputs) -> Tensor:
        scores, fused = network(inputs)
        everything = scores.new_ones(len(scores), dtype=torch.bool)
        by_rna = everything if fused.protein is None else ~fused.protein.visible.any(dim=1)
        usual = network.novelty.usual(network.novelty(fused.z), by_rna)
        return torch.cat([scores.softmax(dim=1), usual[:, None]], dim=1)

    told = read_cells(network, cells, device, read)
    return told[:, :-1], told[:, -1]


def rebuilt_proteins(network: PretrainNetwork, cells: CellDataset, device: torch.device) -> np.ndarray:
    """Return the scaled protein values rebuilt from z alone, float32 [n, p]."""
    return read_cells(network, cells, device, lambda inputs: network(inputs, from_tokens=False).protein_z)


def read_cells(
    network: Network, cells: CellDataset, device: torch.device, read: Callable[[CellInputs], Tensor]
) -> np.ndarray:
    """Return what `read` makes of every cell [n, ...]; each rank reads its share, all have all in the cells' order."""
    network.to(device).eval()
    process = distributed.current()
    is_shared = len(cells) >= process.size > 1
    share = cells.subset(np.array_split(cells.rows, process.size)[process.rank]) if is_shared else cells
    with torch.inference_mode():
        rows, came, done = torch.empty(0), np.empty(len(share), dtype=np.int64), 0
        for batch in make_loader(share, batch_size=cells_at_once(network, device)):
            piece = read(CellInputs.of(batch).to(device)).cpu()
            if not done:  # one block: small pieces that are kept would leave the memory between them in use
                rows = piece.new_empty((len(share), *piece.shape[1:]))
            rows[done : done + len(piece)], came[done : done + len(piece)] = piece, batch.row.numpy()
            done += len(piece)
        if not np.array_equal(came, share.rows):  # cells of a store come as they lie on disk
            rows = rows[torch.from_numpy(pd.Index(came).get_indexer(pd.Index(share.rows)))]
        with distributed.lost_process_reported():
            return (distributed.gather_rows(rows) if is_shared else rows).numpy()
