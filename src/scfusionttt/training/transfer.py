"""Stage 3: RNA-only data with labels; the projection from RNA to proteins and the head learn, the rest is frozen."""

from typing import Any

from scfusionttt.training.classify import ClassifierModule
from scfusionttt.training.optim import adamw_with_cosine


class TransferModule(ClassifierModule):
    """Cross-entropy of a :class:`~scfusionttt.nn.networks.TransferNetwork`, which looks at no protein."""

    def configure_optimizers(self) -> Any:
        """AdamW over the parts that learn."""
        n_steps = int(self.trainer.estimated_stepping_batches)
        return adamw_with_cosine([(self.network, self.stage.lr)], self.stage, n_steps=n_steps)
