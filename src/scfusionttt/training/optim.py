"""AdamW with linear warm-up and a cosine to zero."""

import math
from collections.abc import Iterable
from typing import Any

import torch

from scfusionttt.config import StageConfig


def adamw_with_cosine(groups: Iterable[dict[str, Any]], stage: StageConfig, *, n_steps: int) -> dict[str, Any]:
    """Return Lightning's optimiser configuration for parameter groups, each with its peak ``lr``.

    Weight decay acts on matrices only: biases, scales and step sizes are left alone.
    """
    split = []
    for group in groups:
        parameters = [p for p in group["params"] if p.requires_grad]
        split.append({**group, "params": [p for p in parameters if p.ndim > 1], "weight_decay": stage.weight_decay})
        split.append({**group, "params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0})
    optimizer = torch.optim.AdamW([group for group in split if group["params"]], lr=stage.lr, betas=(0.9, 0.95))
    n_warmup = max(1, round(stage.warmup_epochs * n_steps / stage.epochs))

    def factor(step: int) -> float:
        if step < n_warmup:
            return (step + 1) / n_warmup
        return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - n_warmup) / max(1, n_steps - n_warmup))))

    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}
