"""In which order the cells of a store come: shuffled by blocks that lie together on disk."""

from collections.abc import Iterator

import numpy as np
from torch.utils.data import Sampler

from scfusionttt.data.store.stored import BLOCK, WINDOW


class BlockSampler(Sampler[int]):
    """Positions of cells in windows, each some blocks drawn at random and then shuffled.

    The order depends on the seed and the epoch's number alone, so that a resumed run sees the same, and so does every
    rank: each takes its share of every batch.

    Parameters
    ----------
    places
        [n], where the cell of each position lies on disk.
    block, window
        Cells per block, and per window.
    seed
        Of the order; None: as they lie.
    """

    def __init__(
        self, places: np.ndarray, *, block: int = BLOCK, window: int = WINDOW, seed: int | None = None
    ) -> None:
        self.places, self.block, self.window, self.seed = np.asarray(places), block, window, seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose order comes next."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[int]:
        order = np.argsort(self.places, kind="stable")
        if self.seed is not None:
            rng = np.random.default_rng([self.seed, self.epoch])
            blocks = np.split(order, np.flatnonzero(np.diff(self.places[order] // self.block)) + 1)
            order = np.concatenate([blocks[i] for i in rng.permutation(len(blocks))])
            for start in range(0, len(order), self.window):
                rng.shuffle(order[start : start + self.window])
        return iter(order.tolist())

    def __len__(self) -> int:
        return len(self.places)
