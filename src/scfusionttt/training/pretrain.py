"""Stage 1: rebuild the hidden tokens of both modalities; no labels."""

from typing import Any

from torch import Tensor

from scfusionttt.config import PretrainConfig
from scfusionttt.data.loader import CellBatch
from scfusionttt.nn.networks import PretrainNetwork
from scfusionttt.nn.tokens import CellInputs, VisibleTokens
from scfusionttt.training.masking import masked_mse
from scfusionttt.training.optim import adamw_with_cosine
from scfusionttt.training.step import StageModule


class PretrainModule(StageModule[PretrainNetwork, PretrainConfig]):
    """``L1 = alpha MSE_rna + (1 - alpha) MSE_adt`` on hidden tokens or on all features rebuilt from the bottleneck.

    Each mean squared error is over measured entries, in units of the scaled values squared.
    """

    def __init__(self, network: PretrainNetwork, stage: PretrainConfig, *, seed: int) -> None:
        super().__init__(network, stage, seed=seed)
        self.hide_protein = stage.hide_protein
        self.protein_mask_ratio = stage.protein_mask_ratio
        self.is_masked = stage.objective == "masked"
        self.least_hidden = int(self.is_masked)  # a decoder of tokens learns from hidden ones alone

    def validation_step(self, batch: CellBatch, batch_idx: int) -> None:
        """Log the loss of held-back cells; every epoch hides the same tokens."""
        self.log_losses("val", self.losses(batch, self.hide(batch, batch_idx, validation=True)))

    def configure_optimizers(self) -> Any:
        """AdamW over all parameters."""
        n_steps = int(self.trainer.estimated_stepping_batches)
        return adamw_with_cosine(
            self.network, lr=self.stage.lr, beta2=self.stage.beta2, warmup=self.stage.warmup, n_steps=n_steps
        )

    def totals(self, batch: CellBatch, visible: VisibleTokens) -> dict[str, Tensor]:
        """Return the number of entries of each mean squared error."""
        return {name: where.sum() for name, where in self._where(batch, visible).items()}

    def terms(
        self, batch: CellBatch, visible: VisibleTokens, totals: dict[str, Tensor]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return a part's share of the loss, and of its terms."""
        rebuilt = self.network(
            CellInputs.of(batch), visible,
            from_tokens=self.is_masked, from_z=not self.is_masked,
        )  # fmt: skip
        predictions = {
            "masked_rna": rebuilt.rna_tokens, "masked_protein": rebuilt.protein_tokens,
            "z_rna": rebuilt.rna_z, "z_protein": rebuilt.protein_z,
        }  # fmt: skip
        values = {
            name: masked_mse(predicted, batch.protein if "protein" in name else batch.rna, where, totals[name])
            for name, where in self._where(batch, visible).items()
            if (predicted := predictions[name]) is not None
        }
        loss = sum((self._weight(name) * value for name, value in values.items()), start=batch.rna.new_zeros(()))
        values["loss"] = loss
        projection = self.projection_loss(rebuilt.fused, totals)
        if projection is None:
            return loss, values
        # Logged on its own: it is known in training only, and would keep `train_loss` from comparing with `val_loss`.
        return loss + projection, values | {"projection": projection}

    def _weight(self, name: str) -> float:
        return self.stage.alpha if name.endswith("rna") else 1 - self.stage.alpha

    def _where(self, batch: CellBatch, visible: VisibleTokens) -> dict[str, Tensor]:
        """Return the entries that each mean squared error is taken over."""
        if not self.is_masked:
            return {"z_rna": batch.rna_present, "z_protein": batch.protein_present}
        visible_genes = self.network.backbone.rna_encoder.embedding.per_feature(visible.rna)
        # A cell without any visible protein gives this decoder mask tokens alone: nothing to learn from.
        seen = visible.protein.any(dim=1, keepdim=True)
        return {
            "masked_rna": ~visible_genes & batch.rna_present,
            "masked_protein": ~visible.protein & batch.protein_present & seen,
        }
