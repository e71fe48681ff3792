"""Give RNA and proteins the same say in the distances between cells, and no single programme of RNA most of it."""

import math

import torch
from torch import Tensor, nn

from scfusionttt.data.loader import CellDataset, make_loader
from scfusionttt.nn.inputs import CellInputs
from scfusionttt.nn.networks import PretrainNetwork
from scfusionttt.training.masking import inputs_of
from scfusionttt.training.memory import cells_at_once

#: Cells that the metric is estimated on; more change it little.
MOST_CELLS = 5000
#: Directions of z that no decoder looks at keep this share of the largest scale, so that the map can be undone.
FLOOR = 1e-6
#: A component counts by this power of its standard deviation. 1: distances are those of the rebuilt values, as suits
#: proteins, which were chosen to tell cells apart; 0: all components alike. Genes were not chosen: their first few
#: components (lineage, size of the cell) would hide all others, so they stand half-way.
RNA_POWER, PROTEIN_POWER = 0.5, 1.0


def balance_modalities(network: PretrainNetwork, cells: CellDataset, device: torch.device) -> None:
    """Scale z so that a distance in it is one between rebuilt cells, both modalities weighted alike.

    What the losses leave open is the scale of z: any linear map of it can be undone by the decoders. Here each
    decoder is replaced by its least-squares line. The principal components of what it rebuilds are coordinates
    ``z B`` of the cells; scaled by the powers above and to the same total variance for both modalities, they define
    the distance, and z is multiplied by the root of the sum of ``B B'``. The map is folded into the bottleneck and
    its inverse into the decoders, which rebuild the same values as before. Needs no label.
    """
    step = -(-len(cells) // MOST_CELLS)
    z, rebuilt = _rebuild(network, cells.subset(cells.rows[::step]), device)
    mean = z.mean(dim=0)
    powers = (RNA_POWER, PROTEIN_POWER)
    metric = sum(_metric(z - mean, values, power) for values, power in zip(rebuilt, powers, strict=False))
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
    """Return z and what each decoder makes of it, float64 on the CPU."""
    network.to(device).eval()
    decoders = _decoders(network)
    pieces = []
    with torch.no_grad():
        for batch in make_loader(cells, batch_size=cells_at_once(network, device)):
            z = network.backbone(CellInputs(*(part.to(device) for part in inputs_of(batch)))).z
            pieces.append([z.cpu(), *(decoder(z).cpu() for decoder in decoders)])
    z, *rebuilt = (torch.cat(parts).double() for parts in zip(*pieces, strict=True))
    return z, rebuilt


def _metric(z: Tensor, values: Tensor, power: float) -> Tensor:
    """Return B B' [l, l]: z B are the scaled components of the least-squares line from centred z [n, l] to values."""
    cells, spread, axes = torch.linalg.svd(z, full_matrices=False)
    there = spread > 1e-6 * spread.max()
    components, strength, _ = torch.linalg.svd(cells[:, there].T @ (values - values.mean(dim=0)), full_matrices=False)
    scale = strength.pow(power)
    scale = scale * math.sqrt(len(z)) / scale.norm().clamp(min=1e-12)
    coordinates = (axes[there].T / spread[there]) @ (components * scale)
    return coordinates @ coordinates.T


def _weight(layer: nn.Linear) -> Tensor:
    return layer.weight.detach().cpu().double()


def _bias(layer: nn.Linear) -> Tensor:
    return layer.bias.detach().cpu().double()


def _set(layer: nn.Linear, weight: Tensor, bias: Tensor) -> None:
    layer.weight.copy_(weight)
    layer.bias.copy_(bias)
