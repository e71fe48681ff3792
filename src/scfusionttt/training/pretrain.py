"""Stage 1: rebuild the hidden tokens of both modalities; no labels."""

from typing import Any

import lightning as L
from torch import Tensor

from scfusionttt.config import PretrainConfig
from scfusionttt.nn.inputs import CellInputs, VisibleTokens
from scfusionttt.nn.networks import PretrainNetwork, Reconstruction
from scfusionttt.training.masking import hidden_features, inputs_of, masked_mse, step_generator, visible_tokens
from scfusionttt.training.optim import adamw_with_cosine


class PretrainModule(L.LightningModule):
    """``L1 = alpha MSE_rna + beta MSE_adt`` on hidden tokens, and the same on all features rebuilt from z alone.

    Each mean squared error is over the measured entries it speaks of, in units of the scaled values squared.
    """

    def __init__(self, network: PretrainNetwork, stage: PretrainConfig, *, seed: int) -> None:
        super().__init__()
        self.network, self.stage, self.seed = network, stage, seed

    def training_step(self, batch: tuple[Tensor, ...], batch_idx: int) -> Tensor:
        """Return the loss of one batch of training cells."""
        losses = self._losses(batch, step=self.global_step)
        self.log_dict({f"train_{name}": value for name, value in losses.items()}, on_step=False, on_epoch=True)
        return losses["loss"]

    def validation_step(self, batch: tuple[Tensor, ...], batch_idx: int) -> None:
        """Log the loss of held-back cells; every epoch hides the same tokens."""
        losses = self._losses(batch, step=batch_idx, validation=True)
        values = {f"val_{name}": value for name, value in losses.items()}
        self.log_dict(values, on_epoch=True, batch_size=len(batch[0]))

    def configure_optimizers(self) -> Any:
        """AdamW over all parameters."""
        n_steps = int(self.trainer.estimated_stepping_batches)
        return adamw_with_cosine([(self.network, self.stage.lr)], self.stage, n_steps=n_steps)

    def _losses(self, batch: tuple[Tensor, ...], *, step: int, validation: bool = False) -> dict[str, Tensor]:
        inputs = inputs_of(batch)
        visible = visible_tokens(
            len(inputs.rna), self.network.backbone.rna_encoder.embedding.n_tokens, inputs.protein.shape[1],
            mask_ratio=self.stage.mask_ratio, hide_protein=self.stage.hide_protein,
            generator=step_generator(self.seed, step, validation=validation), device=inputs.rna.device,
        )  # fmt: skip
        rebuilt = self.network(
            inputs, visible, from_tokens=self.stage.masked_weight > 0, from_z=self.stage.bottleneck_weight > 0
        )
        losses = self._terms(rebuilt, inputs, visible)
        weight = {
            "masked_rna": self.stage.masked_weight * self.stage.alpha,
            "masked_protein": self.stage.masked_weight * self.stage.beta,
            "z_rna": self.stage.bottleneck_weight * self.stage.alpha,
            "z_protein": self.stage.bottleneck_weight * self.stage.beta,
            "projection": 1.0,
        }
        losses["loss"] = sum((weight[name] * value for name, value in losses.items()), start=inputs.rna.new_zeros(()))
        return losses

    def _terms(self, rebuilt: Reconstruction, inputs: CellInputs, visible: VisibleTokens) -> dict[str, Tensor]:
        patch = self.network.backbone.rna_encoder.embedding.patch
        assert visible.rna is not None and visible.protein is not None
        terms: dict[str, Tensor] = {}
        if rebuilt.rna_tokens is not None:
            where = hidden_features(visible.rna, inputs.rna_present, patch)
            terms["masked_rna"] = masked_mse(rebuilt.rna_tokens, inputs.rna, where)
        if rebuilt.protein_tokens is not None:
            # A cell without any visible protein gives this decoder mask tokens alone: nothing to learn from.
            seen = visible.protein.any(dim=1, keepdim=True)
            where = hidden_features(visible.protein, inputs.protein_present, 1) & seen
            terms["masked_protein"] = masked_mse(rebuilt.protein_tokens, inputs.protein, where)
        if rebuilt.rna_z is not None:
            terms["z_rna"] = masked_mse(rebuilt.rna_z, inputs.rna, inputs.rna_present)
        if rebuilt.protein_z is not None:
            terms["z_protein"] = masked_mse(rebuilt.protein_z, inputs.protein, inputs.protein_present)
        if rebuilt.fused.projection_loss is not None:
            terms["projection"] = rebuilt.fused.projection_loss
        return terms
