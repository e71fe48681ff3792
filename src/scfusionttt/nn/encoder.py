"""From the values of one modality to its encoded tokens."""

from torch import Tensor, nn

from scfusionttt.config import NetworkConfig
from scfusionttt.nn.block import Stack
from scfusionttt.nn.embedding import FeatureEmbedding


class ModalityEncoder(nn.Module):
    """Embedding and a stack of blocks: `E_rna`, `E_adt` of METHOD."""

    def __init__(self, n_features: int, config: NetworkConfig, *, patch: int) -> None:
        super().__init__()
        self.embedding = FeatureEmbedding(n_features, patch=patch, width=config.width)
        self.stack = Stack(config, config.encoder_blocks)

    def forward(self, values: Tensor, present: Tensor, visible: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Encode values [n, f].

        Parameters
        ----------
        values, present
            [n, f] and which of them were measured.
        visible
            [n, t], tokens that are not hidden (masked autoencoding); None: all.

        Returns
        -------
        tokens [n, t, d] and which of them count [n, t].
        """
        tokens, token_present = self.embedding(values, present)
        if visible is not None:
            token_present = token_present & visible
        return self.stack(tokens, token_present), token_present
