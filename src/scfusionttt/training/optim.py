"""AdamW with linear warm-up and a cosine to zero."""

import math
import re
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from scfusionttt.config import StageConfig

#: A bias or scale by its name: one for each head or token is stored as a matrix, and is none.
_VECTOR = re.compile("bias|scale|shift")


def adamw_with_cosine(groups: Iterable[tuple[nn.Module, float]], stage: StageConfig, *, n_steps: int) -> dict[str, Any]:
    """Return Lightning's optimiser configuration for modules, each with its peak learning rate.

    What is frozen stays out. Weight decay acts on matrices only: biases, scales and step sizes are left alone.
    """
    split = []
    for module, lr in groups:
        learning = {name: p for name, p in module.named_parameters() if p.requires_grad}
        matrices = [p for name, p in learning.items() if p.ndim > 1 and not _VECTOR.search(name)]
        vectors = [p for name, p in learning.items() if p.ndim <= 1 or _VECTOR.search(name)]
        split.append({"params": matrices, "lr": lr, "weight_decay": stage.weight_decay})
        split.append({"params": vectors, "lr": lr, "weight_decay": 0.0})
    filled = [group for group in split if group["params"]]
    optimizer = torch.optim.AdamW(filled, lr=stage.lr, betas=(0.9, 0.95), fused=True)
    n_warmup = max(1, round(stage.warmup * n_steps))

    def factor(step: int) -> float:
        if step < n_warmup:
            return (step + 1) / n_warmup
        return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - n_warmup) / max(1, n_steps - n_warmup))))

    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}
