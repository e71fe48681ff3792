"""The order in which the cells of a store are read: shuffled by blocks that are contiguous on disk."""

from collections.abc import Iterator

import numpy as np
from torch.utils.data import Sampler

from scfusionttt.data.store.stored import BLOCK, WINDOW


def drawn(expected: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return positions, each about as often as expected [n], in order; as many as expected together.

    Systematic sampling: a position comes as often as its expected number, rounded down or up.
    """
    total = round(expected.sum())
    ends = np.cumsum(expected) * (total / expected.sum())
    return np.searchsorted(ends[:-1], rng.random() + np.arange(total), side="right")


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
    expected
        [n], how often each position comes in an epoch, on average, if there is a seed; None: once.
    """

    def __init__(
        self,
        places: np.ndarray,
        *,
        block: int = BLOCK,
        window: int = WINDOW,
        seed: int | None = None,
        expected: np.ndarray | None = None,
    ) -> None:
        self.places, self.block, self.window, self.seed = np.asarray(places), block, window, seed
        self.expected = expected
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
            if self.expected is not None:
                order = order[drawn(self.expected[order], rng)]
            for start in range(0, len(order), self.window):
                rng.shuffle(order[start : start + self.window])
        return iter(order.tolist())

    def __len__(self) -> int:
        return len(self.places)
