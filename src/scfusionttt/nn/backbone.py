"""The backbone of all three networks: encoders, fusion in both directions, bottleneck and PCA skip.

Shapes: n cells, g genes, p proteins, t RNA tokens, d width, l latent.
"""

from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor, nn

from scfusionttt.config import NetworkConfig, Sizes
from scfusionttt.nn.correction import BatchCorrection
from scfusionttt.nn.heads import Placement, ProteinHead
from scfusionttt.nn.layers import Block, Stack
from scfusionttt.nn.tokens import CellInputs, FeatureEmbedding, SlotPool, Tokens, VisibleTokens, masked_mean


class FusedProteins(NamedTuple):
    """The protein tokens of n cells after fusion, and what the projection from RNA is trained on."""

    tokens: Tokens  # fused; present if measured and not hidden
    encoded: Tensor  # [n, p, d] encoded tokens before fusion, detached: the projection's target
    #: Sum of the squared errors of the projection on visible tokens, a scalar that trains the projection alone; None
    #: outside of training.
    projection_error: Tensor | None


class FusedCells(NamedTuple):
    """What the backbone computes of n cells."""

    bottleneck: Tensor  # [n, l] what the decoders reconstruct a cell from
    z: Tensor  # [n, l + ...] the latent vector: bottleneck and a part of the PCA skip, without batch effects
    skip: Tensor | None  # [n, k + p] components and proteins, see PCASkip, without batch effects
    rna: Tokens  # fused; present if measured and not hidden
    protein: FusedProteins | None  # None in a model without proteins


class ModalityEncoder(nn.Module):
    """Token embedding and a stack of blocks: `E_rna` and `E_adt` of METHOD."""

    def __init__(self, n_features: int, config: NetworkConfig, *, patch: int) -> None:
        super().__init__()
        self.embedding = FeatureEmbedding(n_features, patch=patch, width=config.width)
        self.stack = Stack(config, config.encoder_blocks)
        self.summary = nn.Parameter(0.02 * torch.randn(config.width)) if config.has_summary else None

    def forward(
        self, values: Tensor, present: Tensor, visible: Tensor | None = None, positions: Tensor | None = None
    ) -> Tokens:
        """Encode values [n, f].

        Parameters
        ----------
        values, present
            [n, f], and which of them were measured.
        visible
            [n, t], tokens that are not hidden (masked autoencoding); None: all.
        positions
            [n, u], the tokens that are not removed; None: all.

        Returns
        -------
        Encoded tokens, present if measured and not hidden.
        """
        tokens = self.embedding(values, present, positions)
        if visible is not None:
            tokens = tokens._replace(present=tokens.present & tokens.take(visible))
        if self.summary is not None:
            tokens = tokens._replace(summary=self.summary.expand(len(values), -1))
        return tokens.with_sequence(self.stack(*tokens.sequence))


class Fusion(nn.Module):
    """Fuse one modality with the other: ``F_own = E_own + lambda * Block([E_other ; E_own])``, own part (METHOD, 1).

    The block is a TTT or an attention block; or the mean of the other modality is added instead.
    """

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.weight = config.fusion_weight
        self.block = None if config.fusion == "add" else Block(replace(config, mixer=config.fusion))

    def forward(self, own: Tokens, other: Tokens) -> Tokens:
        """Fuse own tokens with those of the other modality."""
        (values, own_present), (others, other_present) = own.sequence, other.sequence
        if self.block is None:
            return own.with_sequence(values + self.weight * masked_mean(other)[:, None])
        tokens, present = torch.cat([others, values], dim=1), torch.cat([other_present, own_present], dim=1)
        fused = self.block(tokens, present, first=others.shape[1])
        return own.with_sequence(values + self.weight * fused)


class CellRepresentation(nn.Module):
    """The bottleneck: a linear layer on the pooled tokens of all modalities.

    With ``latent=0`` (as published) it is the mean of the fused tokens of each modality, concatenated, or the mean of
    their fused summary tokens (``readout=summary``).
    """

    def __init__(self, tokens_per_modality: list[int], config: NetworkConfig, sizes: Sizes) -> None:
        super().__init__()
        self.pools: nn.ModuleList | None = None
        self.n_latent = config.latent or config.width * (1 if config.has_summary else len(tokens_per_modality))
        if config.latent:
            pools = [SlotPool(n_tokens, config.width, sizes.pool_slots) for n_tokens in tokens_per_modality]
            self.pools = nn.ModuleList(pools)
            self.bottleneck = nn.Linear(sum(pool.n_out for pool in pools), config.latent)

    def forward(self, *modalities: Tokens) -> Tensor:
        """Map the tokens of each modality to the bottleneck [n, l]."""
        summaries = [tokens.summary for tokens in modalities if tokens.summary is not None]
        if summaries:
            return torch.stack(summaries).mean(dim=0)
        if self.pools is None:
            return torch.cat([masked_mean(tokens) for tokens in modalities], dim=1)
        pooled = [pool(tokens) for pool, tokens in zip(self.pools, modalities, strict=True)]
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

    def forward(self, rna: Tokens) -> Tensor:
        """Map encoded RNA tokens to protein tokens [n, p, d]."""
        return self.layers(self.pool(rna)).unflatten(1, self.shape)


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

    def forward(self, bottleneck: Tensor, components: Tensor, proteins: Tensor, protein_visible: Tensor) -> Tensor:
        """Return components [n, k] and proteins [n, p], predicted where not visible, side by side, [n, k + p]."""
        predicted = torch.cat([bottleneck, components], dim=1) @ self.fill + self.fill_bias
        return torch.cat([components, self.protein_scale * torch.where(protein_visible, proteins, predicted)], dim=1)

    def first(self, values: Tensor, n_components: int) -> Tensor:
        """Return the first components and all proteins of values [n, k + p]."""
        return torch.cat([values[:, :n_components], values[:, self.n_components :]], dim=1)


class FusionBackbone(nn.Module):
    """Encoders, fusion in both directions, bottleneck and PCA skip, correction of batch effects.

    Cells without visible protein tokens (RNA-only data) get tokens projected from their RNA. Cells without RNA get
    bottleneck and components predicted from their proteins.
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
        if sizes.batch_kinds:
            n_values = self.representation.n_latent + (n_components + n_proteins if n_components else 0)
            self.correction = BatchCorrection(sizes.batch_levels, sizes.batch_kinds, n_values, self.n_latent)
        self.protein_head: ProteinHead | None = None
        if n_proteins and n_components and sizes.protein_landmarks:
            self.protein_head = ProteinHead(
                n_genes, n_proteins, n_components, sizes.protein_landmarks, sizes.protein_batches
            )  # fmt: skip
        self.placement: Placement | None = None
        if sizes.placement:
            self.placement = Placement(n_proteins, self.representation.n_latent + n_components)
        self.whitening = config.whitening
        if self.whitening:
            self.register_buffer("metric", torch.eye(self.n_latent))

    @property
    def n_latent(self) -> int:
        """Width of the latent vector z."""
        skip = 0 if self.view is None or not self.n_components else self.n_components + self.view.n_proteins
        return self.representation.n_latent + skip

    def forward(
        self, inputs: CellInputs, visible: VisibleTokens | None = None, *, matched: bool = False
    ) -> FusedCells:  # fmt: skip
        """Fuse n cells; the encoders see the tokens in `visible`, by default all.

        `matched` cells of batches of RNA alone vary as others do; see :meth:`BatchCorrection.matched`. Heads read z
        without it, which is less noisy.
        """
        seen_rna = (visible.rna, visible.rna_positions) if visible else ()
        rna = self.rna_encoder(inputs.rna, inputs.rna_present, *seen_rna)
        if self.protein_encoder is None:
            bottleneck, z, skip = self._with_skip(self.representation(rna), inputs, visible, matched)
            return FusedCells(bottleneck, z, skip, rna, None)

        seen_protein = (visible.protein, visible.protein_positions) if visible else ()
        encoded = self.protein_encoder(inputs.protein, inputs.protein_present, *seen_protein)
        projected = encoded.take(self.projection(rna))
        has_protein = encoded.present.any(dim=1)
        protein = encoded._replace(
            values=torch.where(has_protein[:, None, None], encoded.values, projected),
            present=encoded.present | ~has_protein[:, None],
        )
        fused_rna, fused_protein = self.rna_fusion(rna, protein), self.protein_fusion(protein, rna)
        representation = self.representation(fused_rna, fused_protein)
        bottleneck, z, skip = self._with_skip(representation, inputs, visible, matched)
        target, error = encoded.values.detach(), None
        if self.training:
            # The encoders do not learn from the projection.
            projection = encoded.take(self.projection(rna._replace(values=rna.values.detach())))
            error = ((projection - target).square() * encoded.present[..., None]).sum()
        proteins = FusedProteins(fused_protein._replace(present=encoded.present), target, error)
        return FusedCells(bottleneck, z, skip, fused_rna, proteins)

    def without_batch_effects(
        self, bottleneck: Tensor, components: Tensor, proteins: Tensor, protein_visible: Tensor, batch: Tensor,
        *, matched: bool = False,
    ) -> tuple[Tensor, Tensor | None]:  # fmt: skip
        """Return z and the values of the PCA skip.

        Parameters
        ----------
        bottleneck, components
            [n, l], and as :meth:`components` returns them.
        proteins, protein_visible
            [n, p], and which of them were measured and not hidden.
        batch
            Levels of the batch keys, [n, keys].
        matched
            As in :meth:`forward`.
        """
        values = corrected = self.values(bottleneck, components, proteins, protein_visible)
        by_rna = ~protein_visible.any(dim=1)
        if self.correction is not None:
            corrected = self.correction(values, batch, self.latent, by_rna)
        z = self.latent(corrected)
        if self.correction is not None and matched:
            z = self.correction.matched(z, values, batch, self.latent, by_rna, self.whitened)
        return z, None if self.view is None else corrected[:, bottleneck.shape[1] :]

    def values(self, bottleneck: Tensor, components: Tensor, proteins: Tensor, protein_visible: Tensor) -> Tensor:
        """Return bottleneck and PCA skip side by side, with the effects of the batches, [n, m]."""
        if self.view is None:
            return bottleneck
        return torch.cat([bottleneck, self.view(bottleneck, components, proteins, protein_visible)], dim=1)

    def components(self, genes: Tensor) -> Tensor:
        """Return the components [n, k] of scaled genes [n, g], 0 where hidden or absent; without a skip, k = 0."""
        return genes[:, :0] if self.view is None else genes @ self.view.axes

    def latent(self, values: Tensor) -> Tensor:
        """Return z [n, l + ...], given bottleneck and PCA skip side by side, [n, m]."""
        bottleneck, skip = values.tensor_split([self.representation.n_latent], dim=1)
        if self.view is None or not self.n_components:
            return bottleneck
        return torch.cat([bottleneck, self.view.reach * self.view.first(skip, self.n_components)], dim=1)

    def _with_skip(
        self, bottleneck: Tensor, inputs: CellInputs, visible: VisibleTokens | None, matched: bool
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Return bottleneck, z and the values of the PCA skip, which reads visible tokens only, as the encoders."""
        gene_visible, protein_visible = inputs.rna_present, inputs.protein_present
        if visible is not None:
            gene_visible = gene_visible & self.rna_encoder.embedding.per_feature(visible.rna)
            protein_visible = protein_visible & visible.protein
        components = self.components(torch.where(gene_visible, inputs.rna, 0.0))
        if self.placement is not None and not self.training:  # no cell without RNA is trained on
            bottleneck, components = self._placed(self.placement, bottleneck, components, inputs)
        return bottleneck, *self.without_batch_effects(
            bottleneck, components, inputs.protein, protein_visible, inputs.batch, matched=matched
        )  # fmt: skip

    def _placed(
        self, placement: Placement, bottleneck: Tensor, components: Tensor, inputs: CellInputs
    ) -> tuple[Tensor, Tensor]:
        """Return bottleneck [n, l] and components [n, k], those of cells without RNA as their proteins predict them."""
        rows = torch.nonzero(~inputs.rna_present.any(dim=1)).ravel()
        if not len(rows) or not placement.is_fitted:
            return bottleneck, components
        values = placement(inputs.protein[rows], inputs.protein_present[rows])
        placed = values.tensor_split([bottleneck.shape[1]], dim=1)
        parts = zip((bottleneck, components), placed, strict=True)
        bottleneck, components = (part.index_copy(0, rows, values) for part, values in parts)
        return bottleneck, components

    def proteins_from_rna(self, inputs: CellInputs) -> tuple[Tensor, Tensor]:
        """Return mean and standard deviation of the scaled proteins [n, p] by RNA alone."""
        assert self.protein_head is not None
        genes = torch.where(inputs.rna_present, inputs.rna, 0.0)
        return self.protein_head(genes, self.components(genes))

    def whitened(self, z: Tensor) -> Tensor:
        """Return the embedding [n, l]: z [n, l], whitened. Heads read z itself."""
        return z @ self.metric if self.whitening else z
