"""AdamW with linear warm-up and a cosine to zero."""

import math
import re
from typing import Any

import torch
from torch import nn

WEIGHT_DECAY = 1e-4
#: Names of biases and scales; those with a value per head or token have two dimensions, but are not matrices.
_VECTOR = re.compile("bias|scale|shift")


def adamw_with_cosine(module: nn.Module, *, lr: float, beta2: float, warmup: float, n_steps: int) -> dict[str, Any]:
    """Return Lightning's optimiser configuration.

    Weight decay acts on matrices only, not on biases, scales and step sizes.

    Parameters
    ----------
    module
        Its parameters that are not frozen are optimised.
    lr
        Peak learning rate.
    beta2
        Decay of the running mean of squared gradients; that of the gradients is 0.9.
    warmup
        Fraction of the `n_steps` steps with linear warm-up.
    """
    learning = {name: p for name, p in module.named_parameters() if p.requires_grad}
    matrices = [p for name, p in learning.items() if p.ndim > 1 and not _VECTOR.search(name)]
    vectors = [p for name, p in learning.items() if p.ndim <= 1 or _VECTOR.search(name)]
    groups = [{"params": matrices, "weight_decay": WEIGHT_DECAY}, {"params": vectors, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW([group for group in groups if group["params"]], lr=lr, betas=(0.9, beta2), fused=True)
    n_warmup = max(1, round(warmup * n_steps))

    def factor(step: int) -> float:
        if step < n_warmup:
            return (step + 1) / n_warmup
        return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - n_warmup) / max(1, n_steps - n_warmup))))

    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}
