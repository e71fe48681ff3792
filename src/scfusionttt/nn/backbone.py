"""The backbone of all three networks: encoders, fusion in both directions, bottleneck and PCA skip.

Shapes: n cells, g genes, p proteins, t RNA tokens, d width, l latent.
"""

from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor, nn

from scfusionttt.config import NetworkConfig, Sizes
from scfusionttt.nn.correction import BatchCorrection
from scfusionttt.nn.heads import ProteinHead
from scfusionttt.nn.layers import Block, Stack
from scfusionttt.nn.tokens import CellInputs, FeatureEmbedding, SlotPool, VisibleTokens, masked_mean


class FusedProteins(NamedTuple):
    """The protein tokens of n cells after fusion, and what the projection from RNA is trained on."""

    tokens: Tensor  # [n, p, d] fused tokens
    visible: Tensor  # [n, p] measured and not hidden
    encoded: Tensor  # [n, p, d] encoded tokens before fusion, detached: the projection's target
    #: Sum of the squared errors of the projection on visible tokens, a scalar that trains the projection alone; None
    #: outside of training.
    projection_error: Tensor | None


class FusedCells(NamedTuple):
    """What the backbone computes of n cells."""

    bottleneck: Tensor  # [n, l] what the decoders reconstruct a cell from
    z: Tensor  # [n, l + ...] the latent vector: bottleneck and a part of the PCA skip, without batch effects
    skip: Tensor | None  # [n, k + p] components and proteins, see PCASkip, without batch effects
    rna: Tensor  # [n, t, d] fused tokens
    rna_visible: Tensor  # [n, t]
    protein: FusedProteins | None  # None in a model without proteins


class ModalityEncoder(nn.Module):
    """Token embedding and a stack of blocks: `E_rna` and `E_adt` of METHOD."""

    def __init__(self, n_features: int, config: NetworkConfig, *, patch: int) -> None:
        super().__init__()
        self.embedding = FeatureEmbedding(n_features, patch=patch, width=config.width)
        self.stack = Stack(config, config.encoder_blocks)

    def forward(self, values: Tensor, present: Tensor, visible: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Encode values [n, f].

        Parameters
        ----------
        values, present
            [n, f], and which of them were measured.
        visible
            [n, t], tokens that are not hidden (masked autoencoding); None: all.

        Returns
        -------
        Tokens [n, t, d], and which of them are present and visible [n, t].
        """
        tokens, token_present = self.embedding(values, present)
        if visible is not None:
            token_present = token_present & visible
        return self.stack(tokens, token_present), token_present


class Fusion(nn.Module):
    """Fuse one modality with the other: ``F_own = E_own + lambda * Block([E_other ; E_own])``, own part (METHOD, 1).

    The block is a TTT or an attention block; or the mean of the other modality is added instead.
    """

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.weight = config.fusion_weight
        self.block = None if config.fusion == "add" else Block(replace(config, mixer=config.fusion))

    def forward(self, own: Tensor, own_present: Tensor, other: Tensor, other_present: Tensor) -> Tensor:
        """Fuse own [n, t, d] with other [n, u, d]; returns [n, t, d]."""
        if self.block is None:
            return own + self.weight * masked_mean(other, other_present)[:, None]
        tokens, present = torch.cat([other, own], dim=1), torch.cat([other_present, own_present], dim=1)
        return own + self.weight * self.block(tokens, present, first=other.shape[1])


class CellRepresentation(nn.Module):
    """The bottleneck: a linear layer on the pooled tokens of all modalities.

    With ``latent=0`` (as published) it is the mean of the fused tokens of each modality, concatenated.
    """

    def __init__(self, tokens_per_modality: list[int], config: NetworkConfig, sizes: Sizes) -> None:
        super().__init__()
        self.pools: nn.ModuleList | None = None
        self.n_latent = config.latent or config.width * len(tokens_per_modality)
        if config.latent:
            pools = [SlotPool(n_tokens, config.width, sizes.pool_slots) for n_tokens in tokens_per_modality]
            self.pools = nn.ModuleList(pools)
            self.bottleneck = nn.Linear(sum(pool.n_out for pool in pools), config.latent)

    def forward(self, *modalities: tuple[Tensor, Tensor]) -> Tensor:
        """Map (tokens [n, t, d], present [n, t]) of each modality to z [n, l]."""
        if self.pools is None:
            return torch.cat([masked_mean(tokens, present) for tokens, present in modalities], dim=1)
        pooled = [pool(tokens, present) for pool, (tokens, present) in zip(self.pools, modalities, strict=True)]
        return self.bottleneck(torch.cat(pooled, dim=1))


class ProteinProjection(nn.Module):
    """Predict the protein tokens of cells without proteins from their RNA tokens (stage 3 of METHOD)."""

    def __init__(self, n_rna_tokens: int, n_proteins: int, config: NetworkConfig, sizes: Sizes) -> None:
        super().__init__()
        self.shape = (n_proteins, config.width)
        self.pool = SlotPool(n_rna_tokens, config.width, sizes.pool_slots)
        hidden = 2 * config.width
        self.layers = nn.Sequential(
            nn.Linear(self.pool.n_out, hidden), nn.GELU(), nn.Linear(hidden, n_proteins * config.width)
        )

    def forward(self, rna: Tensor, rna_present: Tensor) -> Tensor:
        """Map encoded RNA tokens [n, t, d] to protein tokens [n, p, d]."""
        return self.layers(self.pool(rna, rna_present)).unflatten(1, self.shape)


class PCASkip(nn.Module):
    """Principal components of the genes, and the proteins; fitted after pretraining (0 before), not trained.

    A bottleneck keeps the variation that many cells share, but in small data sets loses differences between few cells.
    Linear features next to deep ones keep them (Cheng et al., arXiv 1606.07792). Unmeasured proteins are predicted from
    bottleneck and components by ridge regression.
    """

    axes: Tensor  # [g, k] principal axes; the components have a total variance of 1
    protein_scale: Tensor  # scalar, for a total variance of 1 of the proteins
    fill: Tensor  # [l + k, p] slopes of the regression
    fill_bias: Tensor  # [p]
    reach: Tensor  # scalar, weight in the latent vector

    def __init__(self, n_genes: int, n_proteins: int, n_bottleneck: int, n_components: int) -> None:
        super().__init__()
        self.n_components, self.n_proteins = n_components, n_proteins
        self.register_buffer("axes", torch.zeros(n_genes, self.n_components))
        self.register_buffer("protein_scale", torch.zeros(()))
        self.register_buffer("fill", torch.zeros(n_bottleneck + self.n_components, n_proteins))
        self.register_buffer("fill_bias", torch.zeros(n_proteins))
        self.register_buffer("reach", torch.zeros(()))

    def forward(self, bottleneck: Tensor, genes: Tensor, proteins: Tensor, protein_visible: Tensor) -> Tensor:
        """Map genes [n, g], 0 where hidden or absent, and proteins [n, p] to components and proteins [n, k + p]."""
        components = genes @ self.axes
        predicted = torch.cat([bottleneck, components], dim=1) @ self.fill + self.fill_bias
        return torch.cat([components, self.protein_scale * torch.where(protein_visible, proteins, predicted)], dim=1)

    def first(self, values: Tensor, n_components: int) -> Tensor:
        """Return the first components and all proteins of values [n, k + p]."""
        return torch.cat([values[:, :n_components], values[:, self.n_components :]], dim=1)


class FusionBackbone(nn.Module):
    """Encoders, fusion in both directions, bottleneck and PCA skip, correction of batch effects.

    Cells without visible protein tokens (RNA-only data) get tokens projected from their RNA.
    """

    metric: Tensor  # [l, l] whitening of z, fitted after pretraining

    def __init__(self, n_genes: int, n_proteins: int, config: NetworkConfig, sizes: Sizes) -> None:
        super().__init__()
        self.sizes = sizes
        self.rna_encoder = ModalityEncoder(n_genes, config, patch=config.patch)
        n_tokens = [self.rna_encoder.embedding.n_tokens]
        self.protein_encoder: ModalityEncoder | None = None
        if n_proteins:
            self.protein_encoder = ModalityEncoder(n_proteins, config, patch=1)
            self.rna_fusion = Fusion(config)
            self.protein_fusion = Fusion(config)
            self.projection = ProteinProjection(n_tokens[0], n_proteins, config, sizes)
            n_tokens.append(n_proteins)
        self.representation = CellRepresentation(n_tokens, config, sizes)
        self.view: PCASkip | None = None  # its name in saved models
        if n_components := max(config.components, sizes.skip_components):
            self.view = PCASkip(n_genes, n_proteins, self.representation.n_latent, n_components)
        self.n_components = config.components
        self.correction: BatchCorrection | None = None
        if sizes.batch_levels:
            n_values = self.representation.n_latent + (n_components + n_proteins if n_components else 0)
            self.correction = BatchCorrection(sizes.batch_levels, sizes.batch_kinds, n_values)
        self.protein_head: ProteinHead | None = None
        if n_proteins and n_components and sizes.protein_landmarks:
            self.protein_head = ProteinHead(n_genes, n_proteins, n_components, sizes.protein_landmarks)
        self.whitening = config.whitening
        if self.whitening:
            self.register_buffer("metric", torch.eye(self.n_latent))

    @property
    def n_latent(self) -> int:
        """Width of the latent vector z."""
        skip = 0 if self.view is None or not self.n_components else self.n_components + self.view.n_proteins
        return self.representation.n_latent + skip

    def forward(self, inputs: CellInputs, visible: VisibleTokens | None = None) -> FusedCells:
        """Fuse n cells; the encoders see the tokens in `visible`, by default all."""
        rna, rna_visible = self.rna_encoder(inputs.rna, inputs.rna_present, visible and visible.rna)
        if self.protein_encoder is None:
            bottleneck = self.representation((rna, rna_visible))
            z, skip = self._with_skip(bottleneck, inputs, rna_visible, None)
            return FusedCells(bottleneck, z, skip, rna, rna_visible, None)

        encoded, protein_visible = self.protein_encoder(
            inputs.protein, inputs.protein_present, visible and visible.protein
        )
        projected = self.projection(rna, rna_visible)
        has_protein = protein_visible.any(dim=1)
        protein = torch.where(has_protein[:, None, None], encoded, projected)
        fusible = protein_visible | ~has_protein[:, None]

        fused_rna = self.rna_fusion(rna, rna_visible, protein, fusible)
        fused_protein = self.protein_fusion(protein, fusible, rna, rna_visible)
        bottleneck = self.representation((fused_rna, rna_visible), (fused_protein, fusible))
        z, skip = self._with_skip(bottleneck, inputs, rna_visible, protein_visible)
        target, error = encoded.detach(), None
        if self.training:
            projection = self.projection(rna.detach(), rna_visible)  # the encoders do not learn from it
            error = ((projection - target).square() * protein_visible[..., None]).sum()
        proteins = FusedProteins(fused_protein, protein_visible, target, error)
        return FusedCells(bottleneck, z, skip, fused_rna, rna_visible, proteins)

    def _with_skip(
        self, bottleneck: Tensor, inputs: CellInputs, rna_visible: Tensor, protein_visible: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """Return z and the values of the PCA skip, which reads visible tokens only, as the encoders."""
        values = bottleneck
        if self.view is not None:
            visible = self.rna_encoder.embedding.per_feature(rna_visible) & inputs.rna_present
            if protein_visible is None:
                protein_visible = inputs.protein_present
            skip = self.view(bottleneck, torch.where(visible, inputs.rna, 0.0), inputs.protein, protein_visible)
            values = torch.cat([bottleneck, skip], dim=1)
        if self.correction is not None:
            values = self.correction(values, inputs.batch, self.latent)
        return self.latent(values), None if self.view is None else values[:, bottleneck.shape[1] :]

    def latent(self, values: Tensor) -> Tensor:
        """Return z [n, l + ...], given bottleneck and PCA skip side by side, [n, m]."""
        bottleneck, skip = values.tensor_split([self.representation.n_latent], dim=1)
        if self.view is None or not self.n_components:
            return bottleneck
        return torch.cat([bottleneck, self.view.reach * self.view.first(skip, self.n_components)], dim=1)

    def proteins_from_rna(self, inputs: CellInputs) -> tuple[Tensor, Tensor]:
        """Return mean and standard deviation of the scaled proteins [n, p] by RNA alone."""
        assert self.protein_head is not None and self.view is not None
        genes = torch.where(inputs.rna_present, inputs.rna, 0.0)
        return self.protein_head(genes, genes @ self.view.axes)

    def whitened(self, z: Tensor) -> Tensor:
        """Return the embedding [n, l]: z [n, l], whitened. Heads read z itself."""
        return z @ self.metric if self.whitening else z
