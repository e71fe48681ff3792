"""After pretraining: rescale the bottleneck so that RNA and proteins weigh the same in distances between cells."""

import torch
from torch import Tensor, nn

from scfusionttt.data.loader import CellDataset, make_loader
from scfusionttt.nn.networks import PretrainNetwork
from scfusionttt.nn.tokens import CellInputs
from scfusionttt.training.memory import cells_at_once

#: Most cells to estimate the metric from; more change little.
MOST_CELLS = 5000
#: Features whose values are converted to float64 at a time.
FEATURES_AT_ONCE = 1000
#: Smallest eigenvalue of the metric relative to the largest, so that the map can be inverted.
FLOOR = 1e-6


def scale_latent(network: PretrainNetwork, cells: CellDataset, device: torch.device) -> None:
    """Scale the bottleneck z so that its distances are those of the reconstructed cells, modalities weighted equally.

    The losses do not determine the scale of z, since the decoders can undo any linear map of it. Here each decoder is
    approximated by least squares, ``reconstruction = z A``, and z is multiplied by the square root of
    ``sum over modalities of A A' / variance of the reconstructed modality``. The map is folded into the bottleneck
    layer and its inverse into the decoders, which reconstruct the same values as before. Needs no labels.
    """
    step = -(-len(cells) // MOST_CELLS)
    z, reconstructed = _reconstruct(network, cells.subset(cells.rows[::step]), device)
    mean = z.mean(dim=0)
    metric = sum(_metric(z - mean, values) for values in reconstructed)
    scale, axes = torch.linalg.eigh(metric)
    root = scale.clamp(min=FLOOR * float(scale.max())).sqrt()
    forward, back = (axes * root) @ axes.T, (axes / root) @ axes.T
    with torch.no_grad():
        bottleneck = network.backbone.representation.bottleneck
        _set(bottleneck, forward @ _weight(bottleneck), forward @ (_bias(bottleneck) - mean))
        for decoder in _decoders(network):
            first = decoder.layers[0]
            _set(first, _weight(first) @ back, _bias(first) + _weight(first) @ mean)


def _decoders(network: PretrainNetwork) -> list:
    has_protein = network.backbone.protein_encoder is not None
    return [network.rna_from_z, *([network.protein_from_z] if has_protein else [])]


def _reconstruct(network: PretrainNetwork, cells: CellDataset, device: torch.device) -> tuple[Tensor, list[Tensor]]:
    """Return z, float64, and the output of each decoder, on the CPU."""
    network.to(device).eval()
    decoders = _decoders(network)
    pieces = []
    with torch.no_grad():
        for batch in make_loader(cells, batch_size=cells_at_once(network, device)):
            z = network.backbone(CellInputs.of(batch).to(device)).bottleneck
            pieces.append([z.cpu(), *(decoder(z).cpu() for decoder in decoders)])
    z, *reconstructed = (torch.cat(parts) for parts in zip(*pieces, strict=True))
    return z.double(), reconstructed


def _metric(z: Tensor, values: Tensor) -> Tensor:
    """Return A A' / variance, [l, l], of the least-squares map A from centred z [n, l], float64, to values [n, f]."""
    inverse = torch.linalg.pinv(z)
    product, squares = z.new_zeros(z.shape[1], z.shape[1]), z.new_zeros(())
    for block in values.split(FEATURES_AT_ONCE, dim=1):
        centred = block.double() - block.double().mean(dim=0)
        slopes = inverse @ centred
        product += slopes @ slopes.T
        squares += centred.square().sum()
    return product / (squares / len(values)).clamp(min=1e-12)


def _weight(layer: nn.Linear) -> Tensor:
    return layer.weight.detach().cpu().double()


def _bias(layer: nn.Linear) -> Tensor:
    return layer.bias.detach().cpu().double()


def _set(layer: nn.Linear, weight: Tensor, bias: Tensor) -> None:
    layer.weight.copy_(weight)
    layer.bias.copy_(bias)
