"""Stage 2: pretrained weights and a head learn the cell types of labelled CITE-seq."""

from typing import Any

from torch import Tensor

from scfusionttt.config import FinetuneConfig
from scfusionttt.nn.networks import ClassifierNetwork
from scfusionttt.training.classify import ClassifierModule
from scfusionttt.training.optim import adamw_with_cosine


class FinetuneModule(ClassifierModule):
    """Everything learns, the body more slowly; some cells are shown without proteins, so RNA alone suffices too."""

    def __init__(self, network: ClassifierNetwork, stage: FinetuneConfig, *, class_counts: Tensor, seed: int) -> None:
        super().__init__(network, stage, class_counts=class_counts, seed=seed)
        self.hide_protein = stage.hide_protein
        self.body_lr = stage.lr * stage.body_lr_ratio

    def configure_optimizers(self) -> Any:
        """AdamW with one learning rate for the body and one for the head."""
        network = self.network
        groups = [(network.backbone, self.body_lr), (network.head, self.stage.lr)]
        if network.skip is not None:
            groups.append((network.skip, self.stage.lr))
        return adamw_with_cosine(groups, self.stage, n_steps=int(self.trainer.estimated_stepping_batches))
