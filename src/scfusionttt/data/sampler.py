"""Which cells come when: shuffled by blocks that lie together on disk, a share of them for each rank."""

from collections.abc import Iterator

import numpy as np
from torch.utils.data import Sampler

from scfusionttt.data.store import BLOCK, WINDOW


class BlockSampler(Sampler[int]):
    """Positions of cells in windows, each a number of blocks drawn at random and then shuffled.

    The order depends on the seed and the epoch's number alone, so that a resumed run sees the same. The ranks share the
    blocks: no cell is read twice in an epoch. With a seed each rank has the same number of cells, so that all make as
    many steps; the few that are left over (fewer than there are ranks) are others in each epoch. Without a seed no cell
    is left out, and the cells come as they lie.

    Parameters
    ----------
    places
        [n], where the cell of each position lies on disk.
    block, window
        Cells per block, and per window.
    seed
        Of the order; None: as they lie.
    rank, world_size
        Which of how many processes this is.
    """

    def __init__(
        self,
        places: np.ndarray,
        *,
        block: int = BLOCK,
        window: int = WINDOW,
        seed: int | None = None,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self.places, self.block, self.window = np.asarray(places), block, window
        self.seed, self.rank, self.world_size = seed, rank, world_size
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose order comes next."""
        self.epoch = epoch

    def windows(self) -> list[np.ndarray]:
        """Return the positions of this rank's cells, window by window, in the order in which they are read."""
        order = np.argsort(self.places, kind="stable")
        if self.seed is None:
            return self._cut(np.array_split(order, self.world_size)[self.rank])
        blocks = np.split(order, np.flatnonzero(np.diff(self.places[order] // self.block)) + 1)
        drawn = np.random.default_rng([self.seed, self.epoch]).permutation(len(blocks))
        share = len(order) // self.world_size
        own = np.concatenate([blocks[i] for i in drawn])[self.rank * share : (self.rank + 1) * share]
        within = np.random.default_rng([self.seed, self.epoch, self.rank])
        return [within.permutation(cells) for cells in self._cut(own)]

    def __iter__(self) -> Iterator[int]:
        for cells in self.windows():
            yield from cells.tolist()

    def __len__(self) -> int:
        n = len(self.places)
        if self.seed is not None:
            return n // self.world_size
        return n // self.world_size + (self.rank < n % self.world_size)  # as np.array_split shares them out

    def _cut(self, order: np.ndarray) -> list[np.ndarray]:
        return [order[start : start + self.window] for start in range(0, len(order), self.window)]
