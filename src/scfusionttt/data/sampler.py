"""Which cells come when: shuffled by blocks that lie together on disk."""

from collections.abc import Iterator

import numpy as np
from torch.utils.data import Sampler

from scfusionttt.data.store import BLOCK, WINDOW


class BlockSampler(Sampler[int]):
    """Positions of cells in windows, each a number of blocks drawn at random and then shuffled.

    The order depends on the seed and the epoch's number alone, so that a resumed run sees the same.

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
        self,
        places: np.ndarray,
        *,
        block: int = BLOCK,
        window: int = WINDOW,
        seed: int | None = None,
    ) -> None:
        self.places, self.block, self.window = np.asarray(places), block, window
        self.seed, self.epoch = seed, 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose order comes next."""
        self.epoch = epoch

    def windows(self) -> list[np.ndarray]:
        """Return the positions of the cells, window by window, in the order in which they are read."""
        order = np.argsort(self.places, kind="stable")
        if self.seed is None:
            return self._cut(order)
        blocks = np.split(order, np.flatnonzero(np.diff(self.places[order] // self.block)) + 1)
        rng = np.random.default_rng([self.seed, self.epoch])
        drawn = np.concatenate([blocks[i] for i in rng.permutation(len(blocks))])
        return [rng.permutation(cells) for cells in self._cut(drawn)]

    def __iter__(self) -> Iterator[int]:
        for cells in self.windows():
            yield from cells.tolist()

    def __len__(self) -> int:
        return len(self.places)

    def _cut(self, order: np.ndarray) -> list[np.ndarray]:
        return [order[start : start + self.window] for start in range(0, len(order), self.window)]
