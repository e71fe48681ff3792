"""Cells as batches: sparse in memory, or a window of a store at a time; dense one batch at a time."""

import hashlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple, Protocol, Self

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler, SequentialSampler
from torch.utils.data.distributed import DistributedSampler

from scfusionttt.data.citeseq import CiteSeq
from scfusionttt.data.features import Match
from scfusionttt.data.sampler import BlockSampler
from scfusionttt.data.store import WINDOW, StoredCiteSeq
from scfusionttt.data.values import Preprocessing, present_genes


class CellBatch(NamedTuple):
    """Values of n cells in the model's features: g genes, p proteins."""

    rna: Tensor  # [n, g] float32, zero where not measured
    rna_present: Tensor  # [n, g] bool
    protein: Tensor  # [n, p] float32, zero where not measured
    protein_present: Tensor  # [n, p] bool
    label: Tensor  # [n] int64, -1: not labelled
    row: Tensor  # [n] int64, the cell's row in the input


class CellDataset(Dataset):
    """The cells of an input as a model reads them.

    Parameters
    ----------
    cite, match
        Raw counts and where the model's features stand in them.
    preprocessing
        The model's constants.
    labels
        [n] class numbers, -1 where a cell has none.
    rows
        Which cells, in this order; None: all.
    """

    def __init__(
        self,
        cite: CiteSeq,
        match: Match,
        preprocessing: Preprocessing,
        *,
        labels: np.ndarray | None = None,
        rows: np.ndarray | None = None,
    ) -> None:
        self.preprocessing = preprocessing
        self.cell_names = cite.rna.obs_names
        self.labels = np.full(cite.rna.n_obs, -1) if labels is None else np.asarray(labels)
        self.rows = np.arange(cite.rna.n_obs) if rows is None else np.asarray(rows)
        self._take(cite, match)

    def _take(self, cite: CiteSeq, match: Match) -> None:
        self.rna = self.preprocessing.log_normalized(cite, match)
        self.protein = self.preprocessing.log_ratios(cite, match)
        self.panel, present = present_genes(cite, match)
        self.present = torch.from_numpy(present)

    def subset(self, rows: np.ndarray) -> Self:
        """Return a view of some cells; nothing is copied."""
        view = object.__new__(type(self))
        view.__dict__ = {**self.__dict__, "rows": np.asarray(rows)}
        return view

    def fingerprint(self) -> str:
        """Return what tells these cells from others, and from the same in another order."""
        names = "\n".join(self.cell_names[self.rows])
        return hashlib.sha256(names.encode("utf-8", "surrogatepass")).hexdigest()

    def __len__(self) -> int:
        return len(self.rows)

    def __getitems__(self, positions: list[int]) -> CellBatch:
        """Return the batch at these positions, densified."""
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
        )

    def __getitem__(self, position: int) -> CellBatch:
        return self.__getitems__([position])


class StreamedCells(CellDataset):
    """The cells of a store: values are computed for the cells that are read, and forgotten with them."""

    def _take(self, cite: CiteSeq, match: Match) -> None:
        assert isinstance(cite, StoredCiteSeq)
        self.cite, self.match = cite, match

    def fingerprint(self) -> str:
        """Return what also tells the store from another of the same cells: batches are drawn by where these lie."""
        return super().fingerprint() + hashlib.sha256(self.cite.places[self.rows].tobytes()).hexdigest()

    def read(self, positions: np.ndarray) -> CellDataset:
        """Return the cells at these positions with their values in memory; their rows count from 0."""
        rows = self.rows[positions]
        return CellDataset(self.cite.read(rows), self.match, self.preprocessing, labels=self.labels[rows])

    def __getitems__(self, positions: list[int]) -> CellBatch:
        """Return the batch at these positions; the loader reads many at a time instead."""
        batch = self.read(np.asarray(positions)).__getitems__(list(range(len(positions))))
        return batch._replace(row=torch.from_numpy(self.rows[positions].astype(np.int64)))


def cell_dataset(
    cite: CiteSeq, match: Match, preprocessing: Preprocessing, *, labels: np.ndarray | None = None
) -> CellDataset:
    """Return the cells of an input as a model reads them, from memory or from a store."""
    kind = StreamedCells if isinstance(cite, StoredCiteSeq) else CellDataset
    return kind(cite, match, preprocessing, labels=labels)


class Batches(Protocol):
    """What a loader offers: as many batches as it says, in an order that depends on its sampler's epoch."""

    sampler: Any

    def __len__(self) -> int: ...
    def __iter__(self) -> Iterator[CellBatch]: ...


class StreamLoader:
    """Batches of a store's cells. While one window of cells is used, a thread reads the next."""

    batch_sampler = None  # Lightning asks whoever has a sampler

    def __init__(self, cells: StreamedCells, sampler: BlockSampler, *, batch_size: int) -> None:
        self.cells, self.sampler, self.batch_size = cells, sampler, batch_size

    def __len__(self) -> int:
        return -(-len(self.sampler) // self.batch_size)  # a window is made of whole batches

    def __iter__(self) -> Iterator[CellBatch]:
        with ThreadPoolExecutor(max_workers=1) as reader:
            windows = self.sampler.windows()
            following = reader.submit(self.cells.read, windows[0]) if windows else None
            for number, positions in enumerate(windows):
                assert following is not None
                window, rows = following.result(), torch.from_numpy(self.cells.rows[positions].astype(np.int64))
                if number + 1 < len(windows):
                    following = reader.submit(self.cells.read, windows[number + 1])
                for start in range(0, len(positions), self.batch_size):
                    part = range(start, min(start + self.batch_size, len(positions)))
                    yield window.__getitems__(list(part))._replace(row=rows[part.start : part.stop])


def make_loader(dataset: CellDataset, *, batch_size: int, shuffle_seed: int | None = None) -> Batches:
    """Return batches of `dataset`, shuffled anew each epoch from `shuffle_seed`; where it is None, as they lie.

    The order of an epoch depends on the seed and the epoch's number alone, so that a resumed run sees the same. Cells
    of a store are shuffled by blocks, or come as they lie on disk: `CellBatch.row` says which they are.
    """
    if isinstance(dataset, StreamedCells):
        window = max(WINDOW // batch_size, 1) * batch_size
        order = BlockSampler(dataset.cite.places[dataset.rows], window=window, seed=shuffle_seed)
        return StreamLoader(dataset, order, batch_size=batch_size)
    sampler: Sampler[int] = SequentialSampler(dataset)
    if shuffle_seed is not None:
        sampler = DistributedSampler(dataset, num_replicas=1, rank=0, shuffle=True, seed=shuffle_seed)
    # A generator of its own: the loader would draw from the caller's random state else.
    return DataLoader(dataset, batch_size=batch_size, sampler=sampler, collate_fn=_as_is, generator=torch.Generator())


def _as_is(batch: Any) -> Any:
    return batch
