"""The three networks: pretraining, classification (CITE-seq) and transfer (RNA only), around one backbone.

Shapes: n cells, g genes, p proteins, t RNA tokens, d width, l latent, c classes.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from scfusionttt.config import NetworkConfig, Sizes
from scfusionttt.nn.backbone import FusedCells, FusionBackbone
from scfusionttt.nn.decoders import RepresentationDecoder, TokenDecoder
from scfusionttt.nn.heads import KernelHead, Novelty
from scfusionttt.nn.tokens import CellInputs, VisibleTokens


class Reconstruction(NamedTuple):
    """Values reconstructed from tokens and from the bottleneck; None if not computed."""

    rna_tokens: Tensor | None  # [n, g]
    protein_tokens: Tensor | None  # [n, p]
    rna_z: Tensor | None  # [n, g]
    protein_z: Tensor | None  # [n, p]
    fused: FusedCells


class PretrainNetwork(nn.Module):
    """Stage 1: backbone, the decoders of the bottleneck, and (``decoder_blocks > 0``) a masked-token decoder each."""

    def __init__(self, n_genes: int, n_proteins: int, config: NetworkConfig, sizes: Sizes) -> None:
        super().__init__()
        self.backbone = FusionBackbone(n_genes, n_proteins, config, sizes)
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
        visible: VisibleTokens | None = None,
        *,
        from_tokens: bool = True,
        from_z: bool = True,
    ) -> Reconstruction:
        """Reconstruct the values of n cells from their visible tokens, from the bottleneck, or from both."""
        fused = self.backbone(inputs, visible)
        rna_tokens = protein_tokens = rna_z = protein_z = None
        if self.rna_decoder is not None and from_tokens:
            rna_tokens = self.rna_decoder(fused.rna)
        if from_z:
            rna_z = self.rna_from_z(fused.bottleneck)
        if self.protein_decoder is not None and fused.protein is not None and from_tokens:
            protein_tokens = self.protein_decoder(fused.protein.tokens)
        if fused.protein is not None and from_z:
            protein_z = self.protein_from_z(fused.bottleneck)
        return Reconstruction(rna_tokens, protein_tokens, rna_z, protein_z, fused)

    @property
    def rebuilds_tokens(self) -> bool:
        """Whether values are reconstructed from tokens, as published, and not from the bottleneck."""
        return self.rna_decoder is not None and self.backbone.representation.pools is None

    def rebuild(self, inputs: CellInputs, hidden: Tensor) -> Tensor:
        """Reconstruct n cells of which the features in `hidden` [g + p] are not seen; returns all values [n, g + p].

        A cell without any protein gives the decoder of tokens those projected from its RNA, except the hidden ones.
        """
        genes, proteins = hidden.split([inputs.rna.shape[1], inputs.protein.shape[1]])
        seen = inputs._replace(
            rna_present=inputs.rna_present & ~genes, protein_present=inputs.protein_present & ~proteins
        )
        if self.rna_decoder is None or not self.rebuilds_tokens:
            rebuilt = self(seen, from_tokens=False)
            parts = [rebuilt.rna_z, rebuilt.protein_z]
        else:
            tokens_hidden = self.backbone.rna_encoder.embedding.patched(genes[None]).any(dim=-1)[0]
            fused = self.backbone(seen, VisibleTokens.all_but(tokens_hidden, proteins, len(inputs.rna)))
            parts = [self.rna_decoder(fused.rna), None]
            if self.protein_decoder is not None and fused.protein is not None:
                tokens = fused.protein.tokens
                unhidden = tokens.take((~proteins).expand(len(inputs.rna), -1))
                shown = torch.where(tokens.present.any(dim=1, keepdim=True), tokens.present, unhidden)
                parts[1] = self.protein_decoder(tokens._replace(present=shown))
        return torch.cat([part for part in parts if part is not None], dim=1)


class ClassifierNetwork(nn.Module):
    """Stage 2: the pretrained backbone and a head on z.

    The head is linear, as published, or a kernel head, with a linear head of its own for the PCA skip.
    """

    def __init__(self, backbone: FusionBackbone, n_classes: int, *, kernel: bool = True) -> None:
        super().__init__()
        self.backbone = backbone.requires_grad_(True)  # a student's is frozen
        self.head = (
            KernelHead(backbone.n_latent, n_classes, backbone.sizes.landmarks)
            if kernel
            else nn.Linear(backbone.n_latent, n_classes)
        )
        self.skip: nn.Linear | None = None
        self.n_skipping = backbone.sizes.skip_components if kernel else 0
        if backbone.view is not None and self.n_skipping:
            self.skip = nn.Linear(self.n_skipping + backbone.view.n_proteins, n_classes, bias=False)
            nn.init.zeros_(self.skip.weight)
        self.novelty = Novelty(backbone.n_latent, n_classes)

    def forward(
        self,
        inputs: CellInputs,
        visible: VisibleTokens | None = None,
    ) -> tuple[Tensor, FusedCells]:
        """Return class scores (logits) [n, c] and the fused cells."""
        fused = self.backbone(inputs, visible)
        scores = self.head(fused.z)
        if self.skip is not None:
            scores = scores + self.skip(self.skipping(fused))
        return scores, fused

    def skipping(self, fused: FusedCells) -> Tensor:
        """Return the inputs of the skip's head [n, k + p]; without a skip, k + p = 0."""
        if self.skip is None or self.backbone.view is None or fused.skip is None:
            return fused.z[:, :0]
        return self.backbone.view.first(fused.skip, self.n_skipping)

    def parts_by_class(self) -> tuple[list[Tensor], list[Tensor]]:
        """Return the tensors that all classes share, and those with one row per class."""
        shared = [*self.head.buffers(), self.novelty.whitening, self.novelty.quantiles]
        return shared, [self.head.bias, *self.slopes(), self.novelty.means]

    def slopes(self) -> list[Tensor]:
        """Return the weights of the head and, if any, of the skip; one row per class."""
        return [self.head.weight, *([] if self.skip is None else [self.skip.weight])]


class TransferNetwork(ClassifierNetwork):
    """Stage 3: RNA only. RNA encoder and fusion are frozen; the projection and the head are trained."""

    def __init__(self, backbone: FusionBackbone, n_classes: int, *, kernel: bool = True) -> None:
        super().__init__(backbone, n_classes, kernel=kernel)
        self.backbone.requires_grad_(False)
        for part in self.trained_parts():
            part.requires_grad_(True)

    def trained_parts(self) -> list[nn.Module]:
        """Return the parts that are not frozen."""
        parts: list[nn.Module] = [self.head, *([] if self.skip is None else [self.skip])]
        if self.backbone.protein_encoder is not None:
            parts.append(self.backbone.projection)
        return parts

    def forward(
        self,
        inputs: CellInputs,
        visible: VisibleTokens | None = None,
    ) -> tuple[Tensor, FusedCells]:
        """Return class scores (logits) [n, c] by RNA alone; measured proteins are ignored."""
        return super().forward(inputs.without_proteins(), visible)


Network = PretrainNetwork | ClassifierNetwork | TransferNetwork


def build_network(
    stage: str,
    n_genes: int,
    n_proteins: int,
    n_classes: int,
    config: NetworkConfig,
    sizes: Sizes,
    *,
    kernel: bool = True,
) -> Network:
    """Return the untrained network of a stage: ``pretrain``, ``finetune`` or ``transfer``; `kernel` is its head."""
    if stage == "pretrain":
        return PretrainNetwork(n_genes, n_proteins, config, sizes)
    kind = {"finetune": ClassifierNetwork, "transfer": TransferNetwork}[stage]
    return kind(FusionBackbone(n_genes, n_proteins, config, sizes), n_classes, kernel=kernel)


def carry_over(teacher: Network, known: list[str], student: ClassifierNetwork, classes: list[str]) -> None:
    """Copy the backbone and, if both heads are of one kind, the weights of the classes that they share."""
    student.backbone.load_state_dict(teacher.backbone.state_dict())
    shared = [name for name in classes if name in known]
    if isinstance(teacher, ClassifierNetwork) and shared and type(teacher.head) is type(student.head):
        sources, targets = ([names.index(name) for name in shared] for names in (known, classes))
        of_all, of_class = teacher.parts_by_class()
        to_all, to_class = student.parts_by_class()
        with torch.no_grad():
            for source, target in zip(of_all, to_all, strict=True):
                target.copy_(source)
            for source, target in zip(of_class, to_class, strict=True):
                target[targets] = source[sources]
