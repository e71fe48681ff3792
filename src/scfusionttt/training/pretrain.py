"""Stage 1: rebuild the hidden tokens of both modalities; no labels."""

from typing import Any

from torch import Tensor

from scfusionttt.config import PretrainConfig
from scfusionttt.nn.backbone import Spread
from scfusionttt.nn.networks import PretrainNetwork
from scfusionttt.nn.tokens import CellInputs, VisibleTokens
from scfusionttt.training.masking import inputs_of, masked_mse
from scfusionttt.training.optim import adamw_with_cosine
from scfusionttt.training.step import Batch, StageModule


class PretrainModule(StageModule[PretrainNetwork, PretrainConfig]):
    """``L1 = alpha MSE_rna + beta MSE_adt`` on hidden tokens, and the same on all features rebuilt from z alone.

    Each mean squared error is over the measured entries it speaks of, in units of the scaled values squared.
    """

    def __init__(self, network: PretrainNetwork, stage: PretrainConfig, *, seed: int) -> None:
        super().__init__(network, stage, seed=seed)
        self.hide_protein = stage.hide_protein
        self.protein_mask_ratio = stage.protein_mask_ratio

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Log the loss of held-back cells; every epoch hides the same tokens."""
        self.tell("val", self.losses(batch, self.hide(batch, batch_idx, validation=True)))

    def configure_optimizers(self) -> Any:
        """AdamW over all parameters."""
        n_steps = int(self.trainer.estimated_stepping_batches)
        return adamw_with_cosine([(self.network, self.stage.lr)], self.stage, n_steps=n_steps)

    def totals(self, batch: Batch, visible: VisibleTokens) -> dict[str, Tensor]:
        """Return the number of entries of each mean squared error."""
        return {name: where.sum() for name, where in self._where(inputs_of(batch), visible).items()}

    def terms(
        self, batch: Batch, visible: VisibleTokens, totals: dict[str, Tensor], spread: Spread
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return a part's share of the loss, and of its terms."""
        inputs = inputs_of(batch)
        rebuilt = self.network(
            inputs, visible, from_tokens=self.stage.masked_weight > 0, from_z=self.stage.bottleneck_weight > 0,
            spread=spread,
        )  # fmt: skip
        values = {
            "masked_rna": rebuilt.rna_tokens, "masked_protein": rebuilt.protein_tokens,
            "z_rna": rebuilt.rna_z, "z_protein": rebuilt.protein_z,
        }  # fmt: skip
        told = {
            name: masked_mse(values[name], inputs.protein if "protein" in name else inputs.rna, where, totals[name])
            for name, where in self._where(inputs, visible).items()
            if values[name] is not None
        }
        if rebuilt.fused.projection_loss is not None:
            told["projection"] = rebuilt.fused.projection_loss
        loss = sum((self._weight(name) * value for name, value in told.items()), start=inputs.rna.new_zeros(()))
        return loss, told | {"loss": loss}

    def _weight(self, name: str) -> float:
        if name == "projection":
            return 1.0
        kind = self.stage.masked_weight if name.startswith("masked") else self.stage.bottleneck_weight
        return kind * (self.stage.alpha if name.endswith("rna") else self.stage.beta)

    def _where(self, inputs: CellInputs, visible: VisibleTokens) -> dict[str, Tensor]:
        """Return the entries that each mean squared error speaks of."""
        assert visible.rna is not None and visible.protein is not None
        visible_genes = self.network.backbone.rna_encoder.embedding.per_feature(visible.rna)
        # A cell without any visible protein gives this decoder mask tokens alone: nothing to learn from.
        seen = visible.protein.any(dim=1, keepdim=True)
        return {
            "masked_rna": ~visible_genes & inputs.rna_present,
            "masked_protein": ~visible.protein & inputs.protein_present & seen,
            "z_rna": inputs.rna_present,
            "z_protein": inputs.protein_present,
        }
