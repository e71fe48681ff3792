"""What the stages share: one optimiser step per batch, whose cells may pass through the network a part at a time."""

import logging
from abc import ABC, abstractmethod
from collections.abc import Iterator
from functools import partial
from typing import Any, Generic, NamedTuple, TypeVar

import lightning as L
import torch
from torch import Tensor

from scfusionttt.config import FinetuneConfig, PretrainConfig, TransferConfig
from scfusionttt.nn.backbone import Spread, spread_of
from scfusionttt.nn.networks import ClassifierNetwork, PretrainNetwork
from scfusionttt.nn.tokens import VisibleTokens
from scfusionttt.training import distributed
from scfusionttt.training.masking import inputs_of, step_generator, visible_tokens

log = logging.getLogger("scfusionttt")
N = TypeVar("N", bound=PretrainNetwork | ClassifierNetwork)
S = TypeVar("S", bound=PretrainConfig | FinetuneConfig | TransferConfig)

#: Rows of the batch: values, labels and the like.
Batch = tuple[Tensor, ...]


class Losses(NamedTuple):
    """What a batch gave, summed over all ranks."""

    loss: Tensor
    told: dict[str, Tensor]
    n_cells: int


class StageModule(L.LightningModule, ABC, Generic[N, S]):
    """Gradients of a batch's parts add up to those of the batch; the memory in use is that of one part.

    Every loss is a mean over entries of the batch. A subclass counts them for the whole batch (`totals`) and divides
    what it sums over a part by that count (`terms`), so that the parts' losses sum to the batch's. Hidden tokens are
    drawn for the whole batch. A step in parts is the undivided step but for rounding, and for dropout's random numbers;
    so is one whose batch is shared out among ranks.

    Parameters
    ----------
    network
        The network that learns.
    stage
        Settings of the stage.
    seed
        Seeds the hidden tokens.
    """

    automatic_optimization = False
    hide_protein = 0.0

    def __init__(self, network: N, stage: S, *, seed: int) -> None:
        super().__init__()
        self.network: N = network
        self.stage: S = stage
        self.seed = seed
        self.protein_mask_ratio = stage.mask_ratio
        #: Most cells that pass through the network together.
        self.cells_at_once = stage.batch_size

    @abstractmethod
    def totals(self, batch: Batch, visible: VisibleTokens) -> dict[str, Tensor]:
        """Return what each term of the loss is divided by, over all cells of the batch."""

    @abstractmethod
    def terms(
        self, batch: Batch, visible: VisibleTokens, totals: dict[str, Tensor], spread: Spread
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return a part's share of the loss to descend, and of the values to tell."""

    def hide(self, batch: Batch, step: int, *, validation: bool = False) -> VisibleTokens:
        """Draw the tokens of a batch that the encoders may see in this step; of a share of it, those of the share."""
        inputs = inputs_of(batch)
        start, n_cells = distributed.place(len(inputs.rna))
        drawn = visible_tokens(
            n_cells, self.network.backbone.rna_encoder.embedding.n_tokens, inputs.protein.shape[1],
            mask_ratio=self.stage.mask_ratio, protein_mask_ratio=self.protein_mask_ratio,
            hide_protein=self.hide_protein, generator=step_generator(self.seed, step, validation=validation),
            device=inputs.rna.device,
        )  # fmt: skip
        return _rows(drawn, slice(start, start + len(inputs.rna)))

    def losses(self, batch: Batch, visible: VisibleTokens, *, learn: bool = False) -> Losses:
        """Return the batch's loss and the values to tell; with `learn`, add up the gradients of this rank's share."""
        cells = torch.tensor(len(batch[0]))
        totals = distributed.add_up({**self.totals(batch, visible), "cells": cells})
        spread = self._spread(batch, visible)
        loss, told = batch[0].new_zeros(()), dict[str, Tensor]()
        for part, seen in self._parts(batch, visible):
            share, values = self.terms(part, seen, totals, spread)
            if learn:
                share.backward()
            loss = loss + share.detach()
            told = {name: told.get(name, 0) + value.detach() for name, value in values.items()}
        summed = distributed.add_up({"": loss, **told})
        return Losses(summed.pop(""), summed, int(totals["cells"]))

    def tell(self, part: str, losses: Losses, **options: Any) -> None:
        """Log values of a batch as ``train_...`` or ``val_...``; every rank has those of the whole batch."""
        values = {f"{part}_{name}": value for name, value in losses.told.items()}
        self.log_dict(values, on_epoch=True, batch_size=losses.n_cells, **options)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Make one step of the optimiser."""
        optimizer: Any = self.optimizers()
        scheduler: Any = self.lr_schedulers()
        optimizer.zero_grad()
        losses = self.losses(batch, self.hide(batch, self.global_step), learn=True)
        distributed.add_up_gradients(self)
        if self.stage.gradient_clip:
            self.clip_gradients(optimizer, self.stage.gradient_clip, "norm")
        optimizer.step()
        scheduler.step()
        self.tell("train", losses, on_step=False)
        return losses.loss

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep how a batch is divided, which decides the rounding."""
        checkpoint["cells_at_once"] = self.cells_at_once

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Divide a batch as before, if that fits into today's memory."""
        before = checkpoint.get("cells_at_once", self.cells_at_once)
        if before > self.cells_at_once:
            log.warning(
                "warning: the run began with %d cells at a time, and there is memory for %d now; the result differs "
                "by rounding (and by the random numbers of dropout)", before, self.cells_at_once,
            )  # fmt: skip
        self.cells_at_once = min(before, self.cells_at_once)

    def _spread(self, batch: Batch, visible: VisibleTokens) -> Spread:
        """Return how the unit of the projection's error is found, which is one for all parts and ranks."""
        of_share, backbone = partial(spread_of, add_up=distributed.add_up), self.network.backbone
        if not self.training or backbone.protein_encoder is None or len(batch[0]) <= self.cells_at_once:
            return of_share
        known = backbone.protein_spread(inputs_of(batch), visible, of_share)
        return lambda tokens, visible: known

    def _parts(self, batch: Batch, visible: VisibleTokens) -> Iterator[tuple[Batch, VisibleTokens]]:
        n = len(batch[0])
        for start in range(0, n, self.cells_at_once):
            rows = slice(start, start + self.cells_at_once)
            yield tuple(x[rows] for x in batch), _rows(visible, rows)


def _rows(visible: VisibleTokens, rows: slice) -> VisibleTokens:
    return VisibleTokens(*(x if x is None else x[rows] for x in visible))
