"""What a run of a stage needs apart from its settings; does not load Lightning."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch


@dataclass(frozen=True, kw_only=True)
class Run:
    """Where and how a stage is trained, apart from its settings.

    Parameters
    ----------
    device
        Device to train on.
    seed
        Seeds the order of the cells, the hidden tokens and dropout.
    checkpoints
        Folder for the state after each epoch; None: a temporary one. Several machines need one that all can read.
    resume
        Continue from the last checkpoint in the folder, if any.
    progress
        Show progress on stderr: a bar on a terminal, a line per epoch (and minute) elsewhere.
    memory
        Most bytes that the process may use; None: what it uses already and 80 % of the free memory.
    identity
        Settings, cells and the like, as plain values; only a run with the same identity can be resumed.
    """

    device: torch.device
    seed: int
    checkpoints: Path | None = None
    resume: bool = False
    progress: bool = True
    memory: int | None = None
    identity: Mapping[str, Any] = field(default_factory=dict)
