"""Cells as batches: sparse in memory or a window of a store, and dense one batch at a time."""

import hashlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import accumulate, pairwise
from typing import Any, NamedTuple, Protocol, Self

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import BatchSampler, DataLoader, Dataset, Sampler, SequentialSampler
from torch.utils.data.distributed import DistributedSampler

from scfusionttt.data.cells import CiteSeq, content_hash, feature_panels
from scfusionttt.data.count_splitting import halves
from scfusionttt.data.features import Match
from scfusionttt.data.preprocess import Preprocessing, present_genes
from scfusionttt.data.store.sampler import BlockSampler
from scfusionttt.data.store.stored import WINDOW, StoredCiteSeq
from scfusionttt.errors import SettingError

#: Cells of a small batch in a sample of many cells; the fits after pretraining leave out batches of very few.
FEWEST_DRAWN = 100


class CellBatch(NamedTuple):
    """Values of n cells in the model's features: g genes, p proteins."""

    rna: Tensor  # [n, g] float32, zero where not measured
    rna_present: Tensor  # [n, g] bool
    protein: Tensor  # [n, p] float32, zero where not measured
    protein_present: Tensor  # [n, p] bool
    label: Tensor  # [n] int64, -1: unlabelled
    row: Tensor  # [n] int64, the cell's row in the input
    batch: Tensor  # [n, keys] int64, level of the cell in each batch key; no columns without batch keys

    def to(self, device: str | torch.device) -> "CellBatch":
        """Return the batch on a device."""
        return CellBatch(*(values.to(device) for values in self))


class CellDataset(Dataset):
    """The cells of an input, preprocessed for a model.

    Parameters
    ----------
    cite, match
        Raw counts, and the columns of the model's features in them.
    preprocessing
        Constants of the model.
    labels
        [n] class codes, -1 where unlabelled.
    batches
        [n, keys] levels of the batch keys; None: the model has none.
    """

    def __init__(
        self,
        cite: CiteSeq,
        match: Match,
        preprocessing: Preprocessing,
        *,
        labels: np.ndarray | None = None,
        batches: np.ndarray | None = None,
    ) -> None:
        self.cite, self.match, self.preprocessing = cite, match, preprocessing
        self.cell_names = cite.rna.obs_names
        self.labels = np.full(cite.rna.n_obs, -1) if labels is None else np.asarray(labels)
        self.batches = np.empty((cite.rna.n_obs, 0), dtype=np.int64) if batches is None else batches
        #: Positions of the cells to use, in this order; :meth:`subset` chooses others than all.
        self.rows = np.arange(cite.rna.n_obs)
        self.is_balanced = False
        self._take()

    def _take(self) -> None:
        self.rna = self.preprocessing.log_normalized(self.cite, self.match)
        self.protein = self.preprocessing.log_ratios(self.cite, self.match, self.batches)
        self.panel, present = present_genes(self.cite, self.match)
        self.present = torch.from_numpy(present)

    def subset(self, rows: np.ndarray) -> Self:
        """Return a view of some cells, without a copy."""
        view = object.__new__(type(self))
        view.__dict__ = {**self.__dict__, "rows": np.asarray(rows)}
        return view

    def balanced(self) -> Self:
        """Return a view of which small batches are drawn more often than large ones; see :meth:`expected`."""
        view = self.subset(self.rows)
        view.is_balanced = True
        return view

    def expected(self) -> np.ndarray | None:
        """Return how often each cell comes in an epoch, [n], on average; None: once.

        In balanced cells, the batches of the first key share the epoch in proportion to the square roots of their
        sizes.
        """
        if not self.is_balanced:
            return None
        _, batch, size = np.unique(self.batches[self.rows, 0], return_inverse=True, return_counts=True)
        return (size**-0.5 * len(self) / np.sqrt(size).sum())[batch]

    def with_rna(self) -> Self:
        """Return the cells whose RNA was measured."""
        measured = self.present.any(dim=1).numpy()[self.panel[self.rows]]
        return self if measured.all() else self.subset(self.rows[measured])

    def with_protein(self, number: int) -> Self:
        """Return the cells in which this protein of the model was measured."""
        return self.subset(self.rows[~np.isnan(self.protein[self.rows, number])])

    def loaded(self) -> "CellDataset":
        """Return these cells, in this order, with their values in memory."""
        return self

    def halves(self, seed: int) -> "tuple[CellDataset, CellDataset]":
        """Return these cells twice, in memory, with every count dealt to one of the two; rows are numbered from 0."""
        labels, batches = self.labels[self.rows], self.batches[self.rows]
        first, second = (
            CellDataset(half, self.match, self.preprocessing, labels=labels, batches=batches)
            for half in halves(self.cite[self.rows], seed)
        )
        return first, second

    def drawn(self, most: int, seed: int) -> Self:
        """Return at most so many cells, in their order; those of balanced batches as often as in an epoch.

        Of small batches of the first key, about `FEWEST_DRAWN` cells are drawn, or nearly all that they have.
        """
        if len(self) <= most:
            return self
        expected = self.expected()
        share = None if expected is None else expected / expected.sum()
        if self.batches.shape[1]:
            share = _without_small_shares(share, self.batches[self.rows, 0], most)
        return self.subset(np.sort(np.random.default_rng(seed).choice(self.rows, most, replace=False, p=share)))

    def fingerprint(self) -> str:
        """Return a hash of the cells, their order and the counts of the input (of a store, those of one window)."""
        names = "\n".join(self.cell_names[self.rows]).encode("utf-8", "surrogatepass")
        return hashlib.sha256(names).hexdigest() + content_hash(next(self.cite.blocks()))

    def __len__(self) -> int:
        return len(self.rows)

    def __getitems__(self, positions: list[int]) -> CellBatch:
        """Return the dense batch at these positions."""
        rows = self.rows[positions]
        rna = torch.from_numpy(self.preprocessing.rna.transform(self.rna[rows].toarray()))
        rna_present = self.present[self.panel[rows]]
        protein = self.protein[rows]
        protein_present = torch.from_numpy(~np.isnan(protein))
        scaled = torch.from_numpy(self.preprocessing.protein.transform(protein))
        return CellBatch(
            rna=torch.where(rna_present, rna, 0.0),
            rna_present=rna_present,
            protein=torch.where(protein_present, scaled, 0.0),
            protein_present=protein_present,
            label=torch.from_numpy(self.labels[rows].astype(np.int64)),
            row=torch.from_numpy(rows.astype(np.int64)),
            batch=torch.from_numpy(self.batches[rows]),
        )

    def __getitem__(self, position: int) -> CellBatch:
        return self.__getitems__([position])


class StreamedCells(CellDataset):
    """The cells of a store; values are computed on reading and not kept."""

    cite: StoredCiteSeq

    def _take(self) -> None:
        pass

    def with_rna(self) -> Self:
        """Return all cells, since a store has only those with RNA."""
        return self

    def with_protein(self, number: int) -> Self:
        """Return the cells of the inputs that have this protein of the model."""
        column = self.match.proteins[number]
        if self.cite.protein is None or column < 0:
            return self.subset(self.rows[:0])
        panel, measured = feature_panels(self.cite.protein)
        return self.subset(self.rows[measured[panel[self.rows], column]])

    def loaded(self) -> CellDataset:
        """Return these cells, in this order, with their values in memory; rows are numbered from 0."""
        return self.read(np.arange(len(self)))

    def fingerprint(self) -> str:
        """Return the same with the places of the cells on disk, on which the batches depend."""
        return super().fingerprint() + hashlib.sha256(self.cite.places[self.rows].tobytes()).hexdigest()

    def read(self, positions: np.ndarray) -> CellDataset:
        """Return the cells at these positions with their values in memory; rows are numbered from 0."""
        rows = self.rows[positions]
        return CellDataset(
            self.cite.read(rows), self.match, self.preprocessing, labels=self.labels[rows], batches=self.batches[rows]
        )

    def __getitems__(self, positions: list[int]) -> CellBatch:
        """Return the batch at these positions (the loader reads several batches at once)."""
        batch = self.read(np.asarray(positions)).__getitems__(list(range(len(positions))))
        return batch._replace(row=torch.from_numpy(self.rows[positions].astype(np.int64)))


def _without_small_shares(share: np.ndarray | None, batch: np.ndarray, most: int) -> np.ndarray | None:
    """Return the share of each cell [n] in a sample of `most`, raised in batches of which too few cells would come."""
    _, batch, size = np.unique(batch, return_inverse=True, return_counts=True)
    uniform = np.full(len(batch), 1 / len(batch)) if share is None else share
    wanted = np.minimum(size, min(FEWEST_DRAWN, most / len(size)))
    lacks = most * np.bincount(batch, uniform) < wanted
    if not lacks.any():
        return share
    raised = np.where(lacks[batch], (wanted / size)[batch] / most, uniform)
    return raised / raised.sum()


def cell_dataset(
    cite: CiteSeq,
    match: Match,
    preprocessing: Preprocessing,
    *,
    labels: np.ndarray | None = None,
    batches: np.ndarray | None = None,
) -> CellDataset:
    """Return the preprocessed cells of an input in memory or in a store."""
    kind = StreamedCells if isinstance(cite, StoredCiteSeq) else CellDataset
    return kind(cite, match, preprocessing, labels=labels, batches=batches)


class Batches(Protocol):
    """Interface of a loader: batches in an order that depends on the epoch of its sampler."""

    sampler: Any

    def __len__(self) -> int: ...
    def __iter__(self) -> Iterator[CellBatch]: ...


class SharedBatches(Sampler[list[int]]):
    """The part of each batch for one process rank; together, the ranks read the batches of a single process.

    A last batch with fewer cells than ranks is merged with the one before, since every rank needs a cell.
    """

    def __init__(self, sampler: Sampler[int], batch_size: int, *, rank: int, size: int) -> None:
        self.sampler, self.batch_size, self.rank, self.size = sampler, batch_size, rank, size

    def __iter__(self) -> Iterator[list[int]]:
        cells = np.fromiter(self.sampler, dtype=np.int64)
        for start, stop in self._bounds():
            yield np.array_split(cells[start:stop], self.size)[self.rank].tolist()

    def __len__(self) -> int:
        return len(self._bounds())

    def _bounds(self) -> list[tuple[int, int]]:
        n = len(self.sampler)  # type: ignore[arg-type]
        starts = list(range(0, n, self.batch_size))
        if n - starts[-1] < self.size:
            starts.pop()
        return list(pairwise([*starts, n]))


class StreamLoader:
    """Batches of a store's cells; a thread reads the next batches in the meantime.

    Parameters
    ----------
    cells
        Cells of the store.
    batch_sampler
        Positions of the cells of each batch.
    at_once
        Number of batches that are read together.
    """

    def __init__(self, cells: StreamedCells, batch_sampler: BatchSampler | SharedBatches, *, at_once: int) -> None:
        self.cells, self.batch_sampler, self.at_once = cells, batch_sampler, at_once
        self.sampler = batch_sampler.sampler

    def __len__(self) -> int:
        return len(self.batch_sampler)

    def __iter__(self) -> Iterator[CellBatch]:
        batches = list(self.batch_sampler)
        windows = [batches[start : start + self.at_once] for start in range(0, len(batches), self.at_once)]
        with ThreadPoolExecutor(max_workers=1) as reader:
            ahead = [reader.submit(self.cells.read, np.concatenate(window)) for window in windows[:1]]
            for number, window in enumerate(windows):
                cells = ahead.pop().result()
                ahead = [reader.submit(self.cells.read, np.concatenate(later)) for later in windows[number + 1 :][:1]]
                for (start, stop), positions in zip(pairwise(accumulate(map(len, window), initial=0)), window):
                    batch = cells.__getitems__(list(range(start, stop)))
                    yield batch._replace(row=torch.from_numpy(self.cells.rows[positions].astype(np.int64)))


def make_loader(
    dataset: CellDataset, *, batch_size: int, shuffle_seed: int | None = None, rank: int = 0, size: int = 1
) -> Batches:
    """Return batches of `dataset`, reshuffled in each epoch, or in order if `shuffle_seed` is None.

    The order depends only on the seed and the epoch number, so a resumed run continues with the same batches.
    Cells of a store are shuffled by blocks, or are in the order on disk; `CellBatch.row` identifies them. With several
    processes (`size`), each `rank` gets its part of every batch.

    Raises
    ------
    SettingError
        There are more processes than cells in the dataset or in a batch.
    """
    if size > 1 and len(dataset) < size:
        raise SettingError(
            f"{len(dataset)} cells of training or validation are too few for {size} processes; use fewer processes"
        )
    if size > 1 and batch_size < size:
        raise SettingError(f"a batch of {batch_size} cells is too small for {size} processes; increase batch_size")
    if isinstance(dataset, StreamedCells):
        places = dataset.cite.places[dataset.rows]
        order = BlockSampler(places, window=WINDOW, seed=shuffle_seed, expected=dataset.expected())
        batches: BatchSampler | SharedBatches = BatchSampler(order, batch_size, drop_last=False)
        if size > 1:
            batches = SharedBatches(order, batch_size, rank=rank, size=size)
        return StreamLoader(dataset, batches, at_once=max(WINDOW // batch_size, 1))
    sampler: Sampler[int] = SequentialSampler(dataset)
    if shuffle_seed is not None and dataset.is_balanced:
        n = len(dataset)
        sampler = BlockSampler(np.arange(n), block=n, window=n, seed=shuffle_seed, expected=dataset.expected())
    elif shuffle_seed is not None:
        sampler = DistributedSampler(dataset, num_replicas=1, rank=0, shuffle=True, seed=shuffle_seed)
    options: dict[str, Any] = {"batch_size": batch_size, "sampler": sampler}
    if size > 1:
        options = {"batch_sampler": SharedBatches(sampler, batch_size, rank=rank, size=size)}
    # Without its own generator, the loader would draw from the global random state.
    return DataLoader(dataset, collate_fn=_as_is, generator=torch.Generator(), **options)


def _as_is(batch: Any) -> Any:
    return batch
