"""What stages 2 and 3 share: cross-entropy of a classifier, with classes balanced and tokens hidden."""

import lightning as L
import numpy as np
import torch
from torch import Tensor, nn

from scfusionttt.config import FinetuneConfig, TransferConfig
from scfusionttt.nn.networks import ClassifierNetwork
from scfusionttt.training.masking import inputs_of, step_generator, visible_tokens


def class_weights(counts: np.ndarray, *, balance: bool) -> np.ndarray:
    """Return the weight of a cell of each class, 1 on average: 1 / sqrt(cells), or 1 without `balance`; [c]."""
    weights = 1 / np.sqrt(np.maximum(counts, 1)) if balance else np.ones(len(counts))
    return weights * counts.sum() / (weights * counts).sum()


class ClassifierModule(L.LightningModule):
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

    hide_protein = 0.0

    def __init__(
        self, network: ClassifierNetwork, stage: FinetuneConfig | TransferConfig, *, class_counts: Tensor, seed: int
    ) -> None:
        super().__init__()
        self.network, self.stage, self.seed = network, stage, seed
        weight = torch.from_numpy(class_weights(class_counts.numpy(), balance=stage.class_balance)).float()
        self.loss = nn.CrossEntropyLoss(weight, label_smoothing=stage.label_smoothing)

    def training_step(self, batch: tuple[Tensor, ...], batch_idx: int) -> Tensor:
        """Return the loss of one batch of labelled training cells."""
        inputs = inputs_of(batch)
        visible = visible_tokens(
            len(inputs.rna), self.network.backbone.rna_encoder.embedding.n_tokens, inputs.protein.shape[1],
            mask_ratio=self.stage.mask_ratio, hide_protein=self.hide_protein,
            generator=step_generator(self.seed, self.global_step), device=inputs.rna.device,
        )  # fmt: skip
        logits, fused = self.network(inputs, visible)
        loss = self.loss(logits, batch[4])
        self.log("train_loss", loss, on_step=False, on_epoch=True)
        return loss if fused.projection_loss is None else loss + fused.projection_loss

    def validation_step(self, batch: tuple[Tensor, ...], batch_idx: int) -> None:
        """Log loss and accuracy of held-back training cells, nothing hidden."""
        logits, _ = self.network(inputs_of(batch))
        right = (logits.argmax(dim=1) == batch[4]).float().mean()
        values = {"val_loss": self.loss(logits, batch[4]), "val_accuracy": right}
        self.log_dict(values, on_epoch=True, batch_size=len(batch[0]))
