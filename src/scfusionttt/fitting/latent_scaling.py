"""After pretraining: rescale the bottleneck so that RNA and proteins weigh the same in distances between cells."""

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from scfusionttt.fitting.sample import Sample
from scfusionttt.nn.decoders import RepresentationDecoder
from scfusionttt.nn.networks import PretrainNetwork

#: Features whose values are converted to float64 at a time.
FEATURES_AT_ONCE = 1000
#: Smallest eigenvalue of the metric relative to the largest, so that the map can be inverted.
FLOOR = 1e-6


def scale_latent(network: PretrainNetwork, sample: Sample) -> Sample:
    """Scale the bottleneck z so that its distances are those of the reconstructed cells, modalities weighted equally.

    The losses do not determine the scale of z, since the decoders can undo any linear map of it. Here each decoder is
    approximated by least squares, ``reconstruction = z A``, and z is multiplied by the square root of
    ``sum over modalities of A A' / variance of the reconstructed modality``. The map is folded into the bottleneck
    layer and its inverse into the decoders, which reconstruct the same values as before. Needs no labels.

    Returns
    -------
    The sample with the scaled bottleneck.
    """
    network.cpu().eval()
    z = torch.from_numpy(sample.bottleneck)
    mean = z.double().mean(dim=0)
    with torch.no_grad():
        metric = sum(_metric(z.double() - mean, decoder(z)) for decoder in _decoders(network))
        scale, axes = torch.linalg.eigh(metric)
        root = scale.clamp(min=FLOOR * float(scale.max())).sqrt()
        forward, back = (axes * root) @ axes.T, (axes / root) @ axes.T
        bottleneck = network.backbone.representation.bottleneck
        _set(bottleneck, forward @ bottleneck.weight.double(), forward @ (bottleneck.bias.double() - mean))
        for decoder in _decoders(network):
            first = decoder.first
            _set(first, first.weight.double() @ back, first.bias.double() + first.weight.double() @ mean)

    def scaled(values: np.ndarray) -> np.ndarray:
        return ((values - mean.numpy()) @ forward.numpy()).astype(np.float32)

    return replace(sample, bottleneck=scaled(sample.bottleneck), by_rna=scaled(sample.by_rna))


def _decoders(network: PretrainNetwork) -> list[RepresentationDecoder]:
    has_protein = network.backbone.protein_encoder is not None
    return [network.rna_from_z, *([network.protein_from_z] if has_protein else [])]


def _metric(z: Tensor, values: Tensor) -> Tensor:
    """Return A A' / variance, [l, l], of the least-squares map A from centred z [n, l], float64, to values [n, f]."""
    inverse = torch.linalg.pinv(z)
    product, squares = z.new_zeros(z.shape[1], z.shape[1]), z.new_zeros(())
    for block in values.split(FEATURES_AT_ONCE, dim=1):
        centered = block.double() - block.double().mean(dim=0)
        slopes = inverse @ centered
        product += slopes @ slopes.T
        squares += centered.square().sum()
    return product / (squares / len(values)).clamp(min=1e-12)


def _set(layer: nn.Linear, weight: Tensor, bias: Tensor) -> None:
    layer.weight.copy_(weight)
    layer.bias.copy_(bias)
