"""The three networks: pretraining, classification (CITE-seq) and transfer (RNA only), around one backbone.

Shapes: n cells, g genes, p proteins, t RNA tokens, d width, l latent, c classes.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from scfusionttt.config import NetworkConfig
from scfusionttt.nn.decoder import RepresentationDecoder, TokenDecoder
from scfusionttt.nn.encoder import ModalityEncoder
from scfusionttt.nn.fusion import Fusion
from scfusionttt.nn.heads import CellRepresentation, KernelHead, Novelty, ProteinProjection
from scfusionttt.nn.inputs import CellInputs, VisibleTokens
from scfusionttt.nn.view import PlainView

#: Of tokens [n, p, d] and which of them are visible [n, p]: in what unit their projection's error is told, a scalar.
Spread = Callable[[Tensor, Tensor], Tensor]


def spread_of(
    tokens: Tensor, visible: Tensor, *, add_up: Callable[[dict[str, Tensor]], dict[str, Tensor]] = dict
) -> Tensor:
    """Return the sum of squares of visible tokens about their mean.

    Where these are a share of a batch, `add_up` gives the sum of each scalar over the shares.
    """
    weight, count = visible[..., None], visible.sum() * tokens.shape[-1]
    total, some = (tokens * weight).sum(), count.clamp(min=1)
    about_mean = ((tokens - total / some).square() * weight).sum()
    shares = {"count": count, "total": total, "about mean": about_mean, "of mean": total.square() / some}
    count, total, about_means, of_means = add_up(shares).values()
    some = count.clamp(min=1)
    return (about_means + (of_means - total.square() / some)).clamp(min=1e-6 * some)


class FusedCells(NamedTuple):
    """What the backbone makes of n cells; the protein fields are None in a model without proteins."""

    bottleneck: Tensor  # [n, l] what the decoders rebuild a cell from
    z: Tensor  # [n, l + ...] bottleneck and a part of the view
    view: Tensor | None  # [n, k + p], see PlainView
    rna: Tensor  # [n, t, d] fused tokens
    rna_visible: Tensor  # [n, t]
    protein: Tensor | None  # [n, p, d] fused tokens
    protein_visible: Tensor | None  # [n, p] as measured and not hidden
    #: How far the projection from RNA is from the encoded proteins, a scalar; trains the projection alone.
    projection_loss: Tensor | None


class FusionBackbone(nn.Module):
    """Encoders, fusion both ways, and the fused representation.

    A cell none of whose protein tokens is visible (RNA-only data) gets tokens projected from its RNA instead.
    """

    metric: Tensor  # [l, l] of z, set after pretraining

    def __init__(self, n_genes: int, n_proteins: int, config: NetworkConfig) -> None:
        super().__init__()
        self.rna_encoder = ModalityEncoder(n_genes, config, patch=config.patch)
        n_tokens = [self.rna_encoder.embedding.n_tokens]
        self.protein_encoder: ModalityEncoder | None = None
        if n_proteins:
            self.protein_encoder = ModalityEncoder(n_proteins, config, patch=1)
            self.rna_fusion = Fusion(config)
            self.protein_fusion = Fusion(config)
            self.projection = ProteinProjection(n_tokens[0], n_proteins, config)
            n_tokens.append(n_proteins)
        self.representation = CellRepresentation(n_tokens, config)
        has_view = bool(config.components or config.skip_components)
        self.view = PlainView(n_genes, n_proteins, self.representation.n_latent, config) if has_view else None
        self.n_beside = config.components
        self.whitening = config.whitening
        if self.whitening:
            self.register_buffer("metric", torch.eye(self.n_latent))

    @property
    def n_latent(self) -> int:
        """Width of z."""
        beside = 0 if self.view is None or not self.n_beside else self.n_beside + self.view.n_proteins
        return self.representation.n_latent + beside

    def forward(
        self,
        inputs: CellInputs,
        visible: VisibleTokens = VisibleTokens(),  # noqa: B008
        *,
        spread: Spread = spread_of,
    ) -> FusedCells:
        """Fuse n cells; `visible` hides tokens from the encoders.

        The projection's error is told in units of `spread` of the encoded protein tokens: give that of the batch where
        these cells are a part of it.
        """
        rna, rna_visible = self.rna_encoder(inputs.rna, inputs.rna_present, visible.rna)
        if self.protein_encoder is None:
            bottleneck = self.representation((rna, rna_visible))
            z, view = self._beside(bottleneck, inputs, rna_visible, None)
            return FusedCells(bottleneck, z, view, rna, rna_visible, None, None, None)

        encoded, protein_visible = self.protein_encoder(inputs.protein, inputs.protein_present, visible.protein)
        projected = self.projection(rna, rna_visible)
        has_protein = protein_visible.any(dim=1)
        protein = torch.where(has_protein[:, None, None], encoded, projected)
        fusible = protein_visible | ~has_protein[:, None]

        fused_rna = self.rna_fusion(rna, rna_visible, protein, fusible)
        fused_protein = self.protein_fusion(protein, fusible, rna, rna_visible)
        bottleneck = self.representation((fused_rna, rna_visible), (fused_protein, fusible))
        z, view = self._beside(bottleneck, inputs, rna_visible, protein_visible)
        loss = self._projection_loss(rna, rna_visible, encoded, protein_visible, spread)
        return FusedCells(bottleneck, z, view, fused_rna, rna_visible, fused_protein, protein_visible, loss)

    def _beside(
        self, bottleneck: Tensor, inputs: CellInputs, rna_visible: Tensor, protein_visible: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """Return z and the view, which sees what the encoders see."""
        if self.view is None:
            return bottleneck, None
        seen = self.rna_encoder.embedding.per_feature(rna_visible) & inputs.rna_present
        protein_seen = inputs.protein_present if protein_visible is None else protein_visible
        view = self.view(bottleneck, torch.where(seen, inputs.rna, 0.0), inputs.protein, protein_seen)
        if not self.n_beside:
            return bottleneck, view
        return torch.cat([bottleneck, self.view.reach * self.view.first(view, self.n_beside)], dim=1), view

    def measured(self, z: Tensor) -> Tensor:
        """Return z [n, l] in the metric in which cells are compared; a head reads z as it is."""
        return z @ self.metric if self.whitening else z

    @torch.no_grad()
    def protein_spread(self, inputs: CellInputs, visible: VisibleTokens, spread: Spread) -> Tensor:
        """Return `spread` of the encoded protein tokens, by themselves."""
        assert self.protein_encoder is not None
        return spread(*self.protein_encoder(inputs.protein, inputs.protein_present, visible.protein))

    def _projection_loss(
        self, rna: Tensor, rna_visible: Tensor, encoded: Tensor, visible: Tensor, spread: Spread
    ) -> Tensor | None:
        """Return the squared error of the projection on visible protein tokens, in units of their spread."""
        if not self.training:
            return None
        target = encoded.detach()
        error = (self.projection(rna.detach(), rna_visible) - target).square() * visible[..., None]
        return error.sum() / spread(target, visible)


class Reconstruction(NamedTuple):
    """What pretraining compares with the input: values from tokens and from z alone; None where not built."""

    rna_tokens: Tensor | None  # [n, g]
    protein_tokens: Tensor | None  # [n, p]
    rna_z: Tensor | None  # [n, g]
    protein_z: Tensor | None  # [n, p]
    fused: FusedCells


class PretrainNetwork(nn.Module):
    """Stage 1: backbone, the decoders of the bottleneck, and (``decoder_blocks > 0``) a masked-token decoder each."""

    def __init__(self, n_genes: int, n_proteins: int, config: NetworkConfig) -> None:
        super().__init__()
        self.backbone = FusionBackbone(n_genes, n_proteins, config)
        self.rna_from_z = RepresentationDecoder(self.backbone.representation.n_latent, n_genes)
        if n_proteins:
            self.protein_from_z = RepresentationDecoder(self.backbone.representation.n_latent, n_proteins)
        self.rna_decoder: TokenDecoder | None = None
        self.protein_decoder: TokenDecoder | None = None
        if config.decoder_blocks:
            n_tokens = self.backbone.rna_encoder.embedding.n_tokens
            self.rna_decoder = TokenDecoder(n_genes, n_tokens, config, patch=config.patch)
        if config.decoder_blocks and n_proteins:
            self.protein_decoder = TokenDecoder(n_proteins, n_proteins, config, patch=1)

    def forward(
        self,
        inputs: CellInputs,
        visible: VisibleTokens = VisibleTokens(),  # noqa: B008
        *,
        from_tokens: bool = True,
        from_z: bool = True,
        spread: Spread = spread_of,
    ) -> Reconstruction:
        """Rebuild the values of n cells from their visible tokens and from z, each only where asked for."""
        fused = self.backbone(inputs, visible, spread=spread)
        rna_tokens = protein_tokens = rna_z = protein_z = None
        if self.rna_decoder is not None and from_tokens:
            rna_tokens = self.rna_decoder(fused.rna, fused.rna_visible)
        if from_z:
            rna_z = self.rna_from_z(fused.bottleneck)
        if self.protein_decoder is not None and fused.protein is not None and from_tokens:
            protein_tokens = self.protein_decoder(fused.protein, fused.protein_visible)
        if fused.protein is not None and from_z:
            protein_z = self.protein_from_z(fused.bottleneck)
        return Reconstruction(rna_tokens, protein_tokens, rna_z, protein_z, fused)


class ClassifierNetwork(nn.Module):
    """Stage 2: the pretrained backbone, a head on z, and a line from the view to the class scores.

    As published there is no such skip, and the head is linear (no landmarks).
    """

    def __init__(self, backbone: FusionBackbone, n_classes: int, config: NetworkConfig) -> None:
        super().__init__()
        self.backbone = backbone.requires_grad_(True)  # a student's is frozen
        self.head = (
            KernelHead(backbone.n_latent, n_classes, config.landmarks)
            if config.landmarks
            else nn.Linear(backbone.n_latent, n_classes)
        )
        self.skip: nn.Linear | None = None
        self.n_skipping = config.skip_components
        if backbone.view is not None and self.n_skipping:
            self.skip = nn.Linear(self.n_skipping + backbone.view.n_proteins, n_classes, bias=False)
            nn.init.zeros_(self.skip.weight)
        self.novelty = Novelty(backbone.n_latent, n_classes)

    def forward(
        self,
        inputs: CellInputs,
        visible: VisibleTokens = VisibleTokens(),  # noqa: B008
        *,
        spread: Spread = spread_of,
    ) -> tuple[Tensor, FusedCells]:
        """Return class scores (logits) [n, c] and the fused cells."""
        fused = self.backbone(inputs, visible, spread=spread)
        scores = self.head(fused.z)
        if self.skip is not None:
            scores = scores + self.skip(self.skipping(fused))
        return scores, fused

    def skipping(self, fused: FusedCells) -> Tensor:
        """Return what the skip reads [n, k + p]; k + p = 0 where there is none."""
        if self.skip is None:
            return fused.z[:, :0]
        assert fused.view is not None and self.backbone.view is not None
        return self.backbone.view.first(fused.view, self.n_skipping)

    def parts_by_class(self) -> tuple[list[Tensor], list[Tensor]]:
        """Return what all classes share, head and novelty, and what has a row for each class."""
        shared = [*self.head.buffers(), self.novelty.whitening, self.novelty.quantiles]
        return shared, [self.head.bias, *self.slopes(), self.novelty.means]

    def slopes(self) -> list[Tensor]:
        """Return the weights of the head and of the skip, if there is one; a row for each class."""
        return [self.head.weight, *([] if self.skip is None else [self.skip.weight])]


class TransferNetwork(ClassifierNetwork):
    """Stage 3: RNA only. RNA encoder and fusion are frozen; the projection and the head learn."""

    def __init__(self, backbone: FusionBackbone, n_classes: int, config: NetworkConfig) -> None:
        super().__init__(backbone, n_classes, config)
        self.backbone.requires_grad_(False)
        for part in self.trained_parts():
            part.requires_grad_(True)

    def trained_parts(self) -> list[nn.Module]:
        """Return the parts that learn."""
        parts: list[nn.Module] = [self.head, *([] if self.skip is None else [self.skip])]
        if self.backbone.protein_encoder is not None:
            parts.append(self.backbone.projection)
        return parts

    def forward(
        self,
        inputs: CellInputs,
        visible: VisibleTokens = VisibleTokens(),  # noqa: B008
        *,
        spread: Spread = spread_of,
    ) -> tuple[Tensor, FusedCells]:
        """Return class scores (logits) [n, c] by RNA alone: measured proteins are not looked at."""
        return super().forward(inputs.without_proteins(), visible, spread=spread)


Network = PretrainNetwork | ClassifierNetwork | TransferNetwork


def build_network(stage: str, n_genes: int, n_proteins: int, n_classes: int, config: NetworkConfig) -> Network:
    """Return the untrained network of a stage: ``pretrain``, ``finetune`` or ``transfer``."""
    if stage == "pretrain":
        return PretrainNetwork(n_genes, n_proteins, config)
    kind = {"finetune": ClassifierNetwork, "transfer": TransferNetwork}[stage]
    return kind(FusionBackbone(n_genes, n_proteins, config), n_classes, config)


def carry_over(teacher: Network, known: list[str], student: Network, classes: list[str]) -> None:
    """Copy the backbone, and what is known of the classes that both know."""
    assert isinstance(student, ClassifierNetwork)
    student.backbone.load_state_dict(teacher.backbone.state_dict())
    shared = [name for name in classes if name in known]
    if isinstance(teacher, ClassifierNetwork) and shared:
        there, here = ([names.index(name) for name in shared] for names in (known, classes))
        of_all, of_class = teacher.parts_by_class()
        to_all, to_class = student.parts_by_class()
        with torch.no_grad():
            for source, target in zip(of_all, to_all, strict=True):
                target.copy_(source)
            for source, target in zip(of_class, to_class, strict=True):
                target[here] = source[there]
