"""Run a trained network over cells, without gradients, in the cells' order."""

from collections.abc import Callable, Iterable
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from scfusionttt.nn.inputs import CellInputs
from scfusionttt.training.masking import inputs_of

Network = TypeVar("Network", bound=nn.Module)


def infer(
    network: Network,
    batches: Iterable[tuple[Tensor, ...]],
    read: Callable[[Network, CellInputs], dict[str, Tensor]],
    *,
    device: torch.device,
) -> dict[str, np.ndarray]:
    """Apply ``read(network, inputs)`` to every batch and join the named results along the cells."""
    network.to(device).eval()
    pieces: dict[str, list[np.ndarray]] = {}
    with torch.inference_mode():
        for batch in batches:
            inputs = CellInputs(*(field.to(device) for field in inputs_of(batch)))
            for name, value in read(network, inputs).items():
                pieces.setdefault(name, []).append(value.cpu().numpy())
    return {name: np.concatenate(values) for name, values in pieces.items()}
