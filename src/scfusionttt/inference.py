"""Run a trained network over cells: without gradients, in the order of the cells, independent of the batches."""

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
from scfusionttt.training.machine import cells_at_once

#: Features are hidden in this many parts, one at a time: a seventh, the fraction that the published masking hides.
HIDDEN_PARTS = 7


def embed(network: Network, cells: CellDataset, device: torch.device) -> np.ndarray:
    """Return the embedding (the whitened latent vector), float32 [n, l]."""
    return read_cells(network, cells, device, lambda inputs: _embedding(network, inputs))


def latent(network: Network, cells: CellDataset, device: torch.device, *, rna_only: bool = False) -> np.ndarray:
    """Return the latent vector before whitening, as heads read it, float32 [n, l]; `rna_only`: see `visible_inputs`."""
    return read_cells(network, cells, device, lambda inputs: _z(network, inputs, rna_only=rna_only))


def uses_proteins(network: Network) -> bool:
    """Return whether the network reads measured proteins."""
    return network.backbone.protein_encoder is not None and not isinstance(network, TransferNetwork)


def visible_inputs(network: Network, inputs: CellInputs, *, rna_only: bool = False) -> CellInputs:
    """Return the inputs as the network reads them: by RNA alone if it does not use proteins.

    With `rna_only`, the proteins of all cells that have RNA are ignored.
    """
    if not uses_proteins(network):
        return inputs.without_proteins()
    has_rna = inputs.rna_present.any(dim=1, keepdim=True)
    return inputs._replace(protein_present=inputs.protein_present & ~has_rna) if rna_only else inputs


def _z(network: Network, inputs: CellInputs, *, rna_only: bool = False) -> Tensor:
    return network.backbone(visible_inputs(network, inputs, rna_only=rna_only)).z


def _embedding(network: Network, inputs: CellInputs) -> Tensor:
    fused = network.backbone(visible_inputs(network, inputs), matched=uses_proteins(network))
    return network.backbone.whitened(fused.z)


def embed_with_inner_loss(network: Network, cells: CellDataset, device: torch.device) -> tuple[np.ndarray, np.ndarray]:
    """Return the embedding [n, l] and the inner loss of each RNA token [n, t], the mean over the TTT layers.

    It is NaN where no gene of the token was measured.
    Only TTT layers of the RNA encoder count: these read RNA alone, whether or not proteins were measured.

    Raises
    ------
    SettingError
        The network has no TTT layer in its RNA encoder.
    """
    embedding = network.backbone.rna_encoder.embedding

    def read(inputs: CellInputs) -> Tensor:
        with inner_losses(network.backbone.rna_encoder) as losses:
            z = _embedding(network, inputs)
        if not losses:
            raise SettingError("surprise is the inner loss of TTT layers, but the RNA encoder of this model has none")
        loss = torch.stack(losses).mean(dim=0)[:, : embedding.n_tokens]  # no summary
        measured = embedding.patched(inputs.rna_present).any(dim=-1)
        return torch.cat([z, loss.masked_fill(~measured, torch.nan)], dim=1)

    both = read_cells(network, cells, device, read)
    return both[:, : network.backbone.n_latent], both[:, network.backbone.n_latent :]


def class_scores(network: ClassifierNetwork, cells: CellDataset, device: torch.device) -> np.ndarray:
    """Return the class scores (logits), float32 [n, c]."""
    return read_cells(network, cells, device, lambda inputs: network(inputs)[0])


def probabilities(
    network: ClassifierNetwork, cells: CellDataset, device: torch.device, *, rna_only: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Return class probabilities, float32 [n, c], and the p-value that a cell belongs to a known class, float32 [n]."""

    def read(inputs: CellInputs) -> Tensor:
        scores, fused = network(visible_inputs(network, inputs, rna_only=rna_only))
        everything = scores.new_ones(len(scores), dtype=torch.bool)
        by_rna = everything if fused.protein is None else ~fused.protein.tokens.present.any(dim=1)
        p_value = network.novelty.p_value(network.novelty(fused.z), by_rna)
        return torch.cat([scores.softmax(dim=1), p_value[:, None]], dim=1)

    values = read_cells(network, cells, device, read)
    return values[:, :-1], values[:, -1]


def reconstructed_proteins(network: PretrainNetwork, cells: CellDataset, device: torch.device) -> np.ndarray:
    """Return the scaled protein values of n cells as the network reconstructs them, float32 [n, p].

    The bottleneck reconstructs them all; a decoder of tokens, only what is hidden: each protein in turn with others.
    """
    if not network.rebuilds_tokens:
        return read_cells(network, cells, device, lambda inputs: network(inputs, from_tokens=False).protein_z)
    n_genes, n_proteins = (len(scaler.mean) for scaler in (cells.preprocessing.rna, cells.preprocessing.protein))
    parts = np.concatenate([np.full(n_genes, -1), np.arange(n_proteins) % HIDDEN_PARTS])
    return reconstructed_when_hidden(network, cells, device, parts)[:, n_genes:]


def reconstructed(network: PretrainNetwork, cells: CellDataset, device: torch.device) -> np.ndarray:
    """Return the scaled values of n cells as reconstructed from the bottleneck, float32 [n, g + p]."""

    def read(inputs: CellInputs) -> Tensor:
        rebuilt = network(inputs, from_tokens=False)
        return torch.cat([part for part in (rebuilt.rna_z, rebuilt.protein_z) if part is not None], dim=1)

    return read_cells(network, cells, device, read)


def reconstructed_when_hidden(
    network: PretrainNetwork, cells: CellDataset, device: torch.device, parts: np.ndarray
) -> np.ndarray:
    """Return the scaled values of n cells, float32 [n, g + p], each as reconstructed while its part is hidden.

    Parameters
    ----------
    parts
        Part of each gene and protein, [g + p]; values of the part -1 are never hidden and returned as 0. If tokens are
        reconstructed, the genes of a token must share a part.
    """
    part_of = torch.from_numpy(parts).to(device)

    def read(inputs: CellInputs) -> Tensor:
        values = torch.zeros(len(inputs.rna), len(parts), device=device)
        for part in np.unique(parts[parts >= 0]).tolist():
            hidden = part_of == part
            values = torch.where(hidden, network.rebuild(inputs, hidden), values)
        return values

    return read_cells(network, cells, device, read)


def read_cells(
    network: Network, cells: CellDataset, device: torch.device, read: Callable[[CellInputs], Tensor]
) -> np.ndarray:
    """Return the results of `read` for all cells in their order, [n, ...]; several processes share the work."""
    network.to(device).eval()
    process = distributed.current()
    is_shared = len(cells) >= process.size > 1
    share = cells.subset(np.array_split(cells.rows, process.size)[process.rank]) if is_shared else cells
    with torch.inference_mode():
        rows, order, done = torch.empty(0), np.empty(len(share), dtype=np.int64), 0
        for batch in make_loader(share, batch_size=cells_at_once(network, device)):
            piece = read(CellInputs.of(batch).to(device)).cpu()
            if not done:  # one block for all: many small ones would fragment the memory
                rows = piece.new_empty((len(share), *piece.shape[1:]))
            rows[done : done + len(piece)], order[done : done + len(piece)] = piece, batch.row.numpy()
            done += len(piece)
        if not np.array_equal(order, share.rows):  # cells of a store are read in the order on disk
            rows = rows[torch.from_numpy(pd.Index(order).get_indexer(pd.Index(share.rows)))]
        with distributed.lost_process_reported():
            return (distributed.gather_rows(rows) if is_shared else rows).numpy()
