"""Stages 2 and 3 by gradient descent: cross-entropy of a classifier, with classes balanced and tokens hidden."""

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from scfusionttt.config import FinetuneConfig
from scfusionttt.data.loader import CellBatch
from scfusionttt.nn.networks import ClassifierNetwork, TransferNetwork
from scfusionttt.nn.tokens import CellInputs, VisibleTokens
from scfusionttt.training.optim import adamw_with_cosine
from scfusionttt.training.step import StageModule

#: Fraction of the steps with linear warm-up of the learning rate, as published.
WARMUP = 0.05


def class_weights(counts: np.ndarray, *, balance: bool) -> np.ndarray:
    """Return the weight of a cell of each class, 1 on average: 1 / sqrt(cells), or 1 without `balance`; [c]."""
    weights = 1 / np.sqrt(np.maximum(counts, 1)) if balance else np.ones(len(counts))
    return weights * counts.sum() / (weights * counts).sum()


class ClassifierModule(StageModule[ClassifierNetwork, FinetuneConfig]):
    """Cross-entropy of class scores; what is frozen in the network does not learn.

    In stage 2 some cells are shown without proteins, so that the model learns to classify by RNA alone, too.

    Parameters
    ----------
    network
        The classifier.
    stage
        Settings of the stage.
    class_counts
        [c] training cells per class.
    seed
        Seeds the hidden tokens.
    """

    def __init__(self, network: ClassifierNetwork, stage: FinetuneConfig, *, class_counts: Tensor, seed: int) -> None:
        super().__init__(network, stage, seed=seed)
        weight = torch.from_numpy(class_weights(class_counts.numpy(), balance=stage.class_balance)).float()
        self.loss = nn.CrossEntropyLoss(weight)
        self.hide_protein = 0.0 if isinstance(network, TransferNetwork) else stage.hide_protein

    def validation_step(self, batch: CellBatch, batch_idx: int) -> None:
        """Log loss and accuracy of held-back cells, nothing hidden."""
        n_tokens = self.network.backbone.rna_encoder.embedding.n_tokens
        every_rna_token = batch.rna_present.new_ones(len(batch.rna), n_tokens)
        every_token = VisibleTokens(every_rna_token, torch.ones_like(batch.protein_present))
        self.log_losses("val", self.losses(batch, every_token))

    def configure_optimizers(self) -> Any:
        """AdamW over the parameters that learn."""
        n_steps = int(self.trainer.estimated_stepping_batches)
        return adamw_with_cosine(self.network, lr=self.stage.lr, beta2=self.stage.beta2, warmup=WARMUP, n_steps=n_steps)

    def totals(self, batch: CellBatch, visible: VisibleTokens) -> dict[str, Tensor]:
        """Return the weight of all cells, and their number."""
        return {"loss": self._weight_of(batch.label), "accuracy": torch.tensor(len(batch.label))}

    def terms(
        self, batch: CellBatch, visible: VisibleTokens, totals: dict[str, Tensor]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return a part's share of the loss and, to log, of its cross-entropy; outside of training, of the accuracy."""
        logits, fused = self.network(CellInputs.of(batch), visible)
        loss = self.loss(logits, batch.label) * (self._weight_of(batch.label) / totals["loss"])
        values = {"loss": loss}
        if not self.training:
            values["accuracy"] = (logits.argmax(dim=1) == batch.label).sum() / totals["accuracy"]
        projection = self.projection_loss(fused, totals)
        return loss if projection is None else loss + projection, values

    def _weight_of(self, labels: Tensor) -> Tensor:
        assert self.loss.weight is not None
        return self.loss.weight[labels].sum()
