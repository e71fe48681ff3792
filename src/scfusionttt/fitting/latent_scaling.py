"""Give RNA and proteins the same say in the distances between cells."""

import torch
from torch import Tensor, nn

from scfusionttt.data.loader import CellDataset, make_loader
from scfusionttt.nn.networks import PretrainNetwork
from scfusionttt.nn.tokens import CellInputs
from scfusionttt.training.memory import cells_at_once

#: Cells that the metric is estimated on; more change it little.
MOST_CELLS = 5000
#: Features of which all cells are held in float64 together.
FEATURES_AT_ONCE = 1000
#: Directions of z that no decoder looks at keep this share of the largest scale, so that the map can be undone.
FLOOR = 1e-6


def balance_modalities(network: PretrainNetwork, cells: CellDataset, device: torch.device) -> None:
    """Scale z so that a distance in it is the distance of the rebuilt cells, both modalities weighted alike.

    What the losses leave open is the scale of z: any linear map of it can be undone by the decoders. Here each
    decoder is replaced by its least-squares line, ``rebuilt = z A``, and z is multiplied by the root of
    ``sum over modalities of A A' / variance of the rebuilt modality``. The map is folded into the bottleneck and its
    inverse into the decoders, which rebuild the same values as before. Needs no label.
    """
    step = -(-len(cells) // MOST_CELLS)
    z, rebuilt = _rebuild(network, cells.subset(cells.rows[::step]), device)
    mean = z.mean(dim=0)
    metric = sum(_metric(z - mean, values) for values in rebuilt)
    scale, axes = torch.linalg.eigh(metric)
    root = scale.clamp(min=FLOOR * float(scale.max())).sqrt()
    forward, back = (axes * root) @ axes.T, (axes / root) @ axes.T
    with torch.no_grad():
        bottleneck = network.backbone.representation.bottleneck
        _set(bottleneck, forward @ _weight(bottleneck), forward @ (_bias(bottleneck) - mean))
        for decoder in _decoders(network):
            first = decoder.layers[0]
            assert isinstance(first, nn.Linear)
            _set(first, _weight(first) @ back, _bias(first) + _weight(first) @ mean)


def _decoders(network: PretrainNetwork) -> list:
    has_protein = network.backbone.protein_encoder is not None
    return [network.rna_from_z, *([network.protein_from_z] if has_protein else [])]


def _rebuild(network: PretrainNetwork, cells: CellDataset, device: torch.device) -> tuple[Tensor, list[Tensor]]:
    """Return z, float64, and what each decoder makes of it, on the CPU."""
    network.to(device).eval()
    decoders = _decoders(network)
    pieces = []
    with torch.no_grad():
        for batch in make_loader(cells, batch_size=cells_at_once(network, device)):
            z = network.backbone(CellInputs.of(batch).to(device)).bottleneck
            pieces.append([z.cpu(), *(decoder(z).cpu() for decoder in decoders)])
    z, *rebuilt = (torch.cat(parts) for parts in zip(*pieces, strict=True))
    return z.double(), rebuilt


def _metric(z: Tensor, values: Tensor) -> Tensor:
    """Return A A' / variance, [l, l], of the least-squares line from centred z [n, l], float64, to values [n, f]."""
    inverse = torch.linalg.pinv(z)
    product, squares = z.new_zeros(z.shape[1], z.shape[1]), z.new_zeros(())
    for some in values.split(FEATURES_AT_ONCE, dim=1):
        centred = some.double() - some.double().mean(dim=0)
        line = inverse @ centred
        product += line @ line.T
        squares += centred.square().sum()
    return product / (squares / len(values)).clamp(min=1e-12)


def _weight(layer: nn.Linear) -> Tensor:
    return layer.weight.detach().cpu().double()


def _bias(layer: nn.Linear) -> Tensor:
    return layer.bias.detach().cpu().double()


def _set(layer: nn.Linear, weight: Tensor, bias: Tensor) -> None:
    layer.weight.copy_(weight)
    layer.bias.copy_(bias)
