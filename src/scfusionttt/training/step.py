"""What the stages share: one optimiser step per batch, whose cells may pass through the network a part at a time."""

import logging
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any, Generic, NamedTuple, TypeVar

import lightning as L
import torch
from torch import Tensor

from scfusionttt.config import FinetuneConfig, PretrainConfig
from scfusionttt.data.loader import CellBatch
from scfusionttt.nn.backbone import FusedCells
from scfusionttt.nn.networks import ClassifierNetwork, PretrainNetwork
from scfusionttt.nn.tokens import VisibleTokens
from scfusionttt.training import distributed
from scfusionttt.training.masking import step_generator, visible_tokens

log = logging.getLogger("scfusionttt")
N = TypeVar("N", bound=PretrainNetwork | ClassifierNetwork)
S = TypeVar("S", bound=PretrainConfig | FinetuneConfig)

#: Largest norm of all gradients together.
GRADIENT_CLIP = 1.0


class Losses(NamedTuple):
    """The loss of a batch and the values to log, summed over all processes."""

    loss: Tensor
    values: dict[str, Tensor]
    n_cells: int


class StageModule(L.LightningModule, ABC, Generic[N, S]):
    """Gradients of a batch's parts add up to those of the batch; the memory in use is that of one part.

    Every loss is a mean over entries of the batch. A subclass counts them for the whole batch (`totals`) and divides
    the sum over a part by that count (`terms`), so that the parts' losses sum to the batch's. Hidden tokens are drawn
    for the whole batch. A step in parts equals the undivided step up to rounding and the random numbers of dropout;
    so does a step that several processes share.

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
    least_hidden = 0

    def __init__(self, network: N, stage: S, *, seed: int) -> None:
        super().__init__()
        self.network: N = network
        self.stage: S = stage
        self.seed = seed
        self.protein_mask_ratio = stage.mask_ratio
        #: Most cells that pass through the network together.
        self.cells_at_once = stage.batch_size

    @abstractmethod
    def totals(self, batch: CellBatch, visible: VisibleTokens) -> dict[str, Tensor]:
        """Return the number that each term of the loss is divided by, for the cells of this process."""

    @abstractmethod
    def terms(
        self, batch: CellBatch, visible: VisibleTokens, totals: dict[str, Tensor]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return a part's share of the loss to minimise and of the values to log; `totals` are of the whole batch."""

    def hide(self, batch: CellBatch, step: int, *, validation: bool = False) -> VisibleTokens:
        """Draw the tokens that the encoders may see in this step; every process draws for all and keeps its own."""
        start, n_cells = distributed.offset(len(batch.rna))
        drawn = visible_tokens(
            n_cells, self.network.backbone.rna_encoder.embedding.n_tokens, batch.protein.shape[1],
            mask_ratio=self.stage.mask_ratio, protein_mask_ratio=self.protein_mask_ratio,
            hide_protein=self.hide_protein, least_hidden=self.least_hidden,
            generator=step_generator(self.seed, step, validation=validation), device=batch.rna.device,
        )  # fmt: skip
        return drawn.rows(slice(start, start + len(batch.rna)))

    def losses(self, batch: CellBatch, visible: VisibleTokens, *, learn: bool = False) -> Losses:
        """Return the batch's loss and the values to log; with `learn`, add up the gradients of this process."""
        cells = torch.tensor(len(batch.rna))
        totals = distributed.sum_scalars({**self.totals(batch, visible), "cells": cells})
        if self.training and len(batch.rna) > self.cells_at_once:
            totals |= self._projection_total(batch, visible)
        loss, values = batch.rna.new_zeros(()), dict[str, Tensor]()
        for part, part_visible in self._parts(batch, visible):
            share, of_part = self.terms(part, part_visible, totals)
            if learn:
                share.backward()
            loss = loss + share.detach()
            values = {name: values.get(name, 0) + value.detach() for name, value in of_part.items()}
        summed = distributed.sum_scalars({"": loss, **values})
        return Losses(summed.pop(""), summed, int(totals["cells"]))

    def projection_loss(self, fused: FusedCells, totals: dict[str, Tensor]) -> Tensor | None:
        """Return a part's error of the projection, in units of the spread of the batch's encoded protein tokens.

        None outside of training and in a model without proteins.
        """
        if fused.protein is None or fused.protein.projection_error is None:
            return None
        if "projection" not in totals:  # the part is the batch
            totals["projection"] = sum_of_squares(fused.protein.encoded, fused.protein.tokens.present)
        return fused.protein.projection_error / totals["projection"]

    def log_losses(self, part: str, losses: Losses, **options: Any) -> None:
        """Log the values of a batch as ``train_...`` or ``val_...``; every process has those of the whole batch."""
        values = {f"{part}_{name}": value for name, value in losses.values.items()}
        self.log_dict(values, on_epoch=True, batch_size=losses.n_cells, **options)

    def training_step(self, batch: CellBatch, batch_idx: int) -> Tensor:
        """Make one step of the optimiser."""
        optimizer: Any = self.optimizers()
        scheduler: Any = self.lr_schedulers()
        optimizer.zero_grad()
        losses = self.losses(batch, self.hide(batch, self.global_step), learn=True)
        distributed.sum_gradients(self)
        self.clip_gradients(optimizer, GRADIENT_CLIP, "norm")
        optimizer.step()
        scheduler.step()
        self.log_losses("train", losses, on_step=False)
        return losses.loss

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Save how batches are divided, since rounding depends on it."""
        checkpoint["cells_at_once"] = self.cells_at_once

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Divide batches as before if the memory suffices."""
        before = checkpoint.get("cells_at_once", self.cells_at_once)
        if before > self.cells_at_once:
            log.warning(
                "warning: the run began with %d cells at a time, but now the memory suffices for %d; the result "
                "differs by rounding (and by the random numbers of dropout)", before, self.cells_at_once,
            )  # fmt: skip
        self.cells_at_once = min(before, self.cells_at_once)

    @torch.no_grad()
    def _projection_total(self, batch: CellBatch, visible: VisibleTokens) -> dict[str, Tensor]:
        """Return the unit of the projection's error over the whole batch, by a pass of the protein encoder alone."""
        encoder = self.network.backbone.protein_encoder
        if encoder is None:
            return {}
        encoded = encoder(batch.protein, batch.protein_present, visible.protein, visible.protein_positions)
        return {"projection": sum_of_squares(encoded.values, encoded.present)}

    def _parts(self, batch: CellBatch, visible: VisibleTokens) -> Iterator[tuple[CellBatch, VisibleTokens]]:
        for start in range(0, len(batch.rna), self.cells_at_once):
            rows = slice(start, start + self.cells_at_once)
            yield CellBatch(*(x[rows] for x in batch)), visible.rows(rows)


def sum_of_squares(tokens: Tensor, visible: Tensor) -> Tensor:
    """Return the sum of squares about their mean of the visible tokens of all processes.

    Parameters
    ----------
    tokens, visible
        [n, p, d] of the cells of this process, and which of them are visible [n, p].
    """
    weight, count = visible[..., None], visible.sum() * tokens.shape[-1]
    total, n = (tokens * weight).sum(), count.clamp(min=1)
    within = ((tokens - total / n).square() * weight).sum()
    sums = {"count": count, "total": total, "within": within, "of mean": total.square() / n}
    count, total, within, of_means = distributed.sum_scalars(sums).values()
    n = count.clamp(min=1)
    return (within + (of_means - total.square() / n)).clamp(min=1e-6 * n)
