"""The order in which the cells of a store are read: shuffled by blocks that are contiguous on disk."""

from collections.abc import Iterator

import numpy as np
from torch.utils.data import Sampler

from scfusionttt.data.store.stored import BLOCK, WINDOW


class BlockSampler(Sampler[int]):
    """Positions of cells in windows: random blocks, whose cells are shuffled together.

    The order depends only on the seed and the epoch number, so it is the same in a resumed run and for every process
    rank.

    Parameters
    ----------
    places
        [n], place on disk of the cell at each position.
    block, window
        Cells per block, and per window.
    seed
        Seed of the order; None: as on disk.
    """

    def __init__(
        self, places: np.ndarray, *, block: int = BLOCK, window: int = WINDOW, seed: int | None = None
    ) -> None:
        self.places, self.block, self.window, self.seed = np.asarray(places), block, window, seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch of the next order."""
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
