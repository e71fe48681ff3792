"""What stages 2 and 3 share: cross-entropy of a classifier, with classes balanced and tokens hidden."""

import numpy as np
import torch
from torch import Tensor, nn

from scfusionttt.config import FinetuneConfig, TransferConfig
from scfusionttt.nn.backbone import Spread
from scfusionttt.nn.networks import ClassifierNetwork
from scfusionttt.nn.tokens import VisibleTokens
from scfusionttt.training.masking import inputs_of
from scfusionttt.training.step import Batch, StageModule


def class_weights(counts: np.ndarray, *, balance: bool) -> np.ndarray:
    """Return the weight of a cell of each class, 1 on average: 1 / sqrt(cells), or 1 without `balance`; [c]."""
    weights = 1 / np.sqrt(np.maximum(counts, 1)) if balance else np.ones(len(counts))
    return weights * counts.sum() / (weights * counts).sum()


class ClassifierModule(StageModule[ClassifierNetwork, FinetuneConfig | TransferConfig]):
    """Cross-entropy of class scores; subclasses say what learns and which proteins are hidden.

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

    def __init__(
        self, network: ClassifierNetwork, stage: FinetuneConfig | TransferConfig, *, class_counts: Tensor, seed: int
    ) -> None:
        super().__init__(network, stage, seed=seed)
        weight = torch.from_numpy(class_weights(class_counts.numpy(), balance=stage.class_balance)).float()
        self.loss = nn.CrossEntropyLoss(weight, label_smoothing=stage.label_smoothing)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Log loss and accuracy of held-back cells, nothing hidden."""
        self.tell("val", self.losses(batch, VisibleTokens()))

    def totals(self, batch: Batch, visible: VisibleTokens) -> dict[str, Tensor]:
        """Return the weight of all cells, and their number."""
        return {"loss": self._weight_of(batch[4]), "accuracy": torch.tensor(len(batch[4]))}

    def terms(
        self, batch: Batch, visible: VisibleTokens, totals: dict[str, Tensor], spread: Spread
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return a part's share of the loss, and what of it is cross-entropy; outside of training, of the accuracy."""
        labels = batch[4]
        logits, fused = self.network(inputs_of(batch), visible, spread=spread)
        told = {"loss": self.loss(logits, labels) * (self._weight_of(labels) / totals["loss"])}
        if not self.training:
            told["accuracy"] = (logits.argmax(dim=1) == labels).sum() / totals["accuracy"]
        return told["loss"] if fused.projection_loss is None else told["loss"] + fused.projection_loss, told

    def _weight_of(self, labels: Tensor) -> Tensor:
        assert self.loss.weight is not None
        return self.loss.weight[labels].sum()
