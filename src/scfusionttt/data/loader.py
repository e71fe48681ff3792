"""Cells as batches: sparse in memory, dense one batch at a time."""

from collections.abc import Iterator
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler, SequentialSampler
from torch.utils.data.distributed import DistributedSampler

from scfusionttt.data.citeseq import CiteSeq
from scfusionttt.data.features import Match
from scfusionttt.data.values import Preprocessing
from scfusionttt.errors import SettingError


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
        self.rna = preprocessing.log_normalized(cite, match)
        self.protein = preprocessing.log_ratios(cite, match)
        self.rna_present = torch.from_numpy(match.genes >= 0)
        self.labels = np.full(cite.rna.n_obs, -1) if labels is None else np.asarray(labels)
        self.rows = np.arange(cite.rna.n_obs) if rows is None else np.asarray(rows)

    def subset(self, rows: np.ndarray) -> "CellDataset":
        """Return a view of some cells; nothing is copied."""
        view = object.__new__(CellDataset)
        view.__dict__ = {**self.__dict__, "rows": np.asarray(rows)}
        return view

    def __len__(self) -> int:
        return len(self.rows)

    def __getitems__(self, positions: list[int]) -> CellBatch:
        """Return the batch at these positions, densified."""
        rows = self.rows[positions]
        rna = torch.from_numpy(self.preprocessing.rna.transform(self.rna[rows].toarray()))
        protein = self.protein[rows]
        protein_present = torch.from_numpy(~np.isnan(protein))
        scaled = torch.from_numpy(self.preprocessing.protein.transform(protein))
        return CellBatch(
            rna=torch.where(self.rna_present, rna, 0.0),
            rna_present=self.rna_present.expand(len(rows), -1),
            protein=torch.where(protein_present, scaled, 0.0),
            protein_present=protein_present,
            label=torch.from_numpy(self.labels[rows].astype(np.int64)),
            row=torch.from_numpy(rows.astype(np.int64)),
        )

    def __getitem__(self, position: int) -> CellBatch:
        return self.__getitems__([position])


class SharedBatches(Sampler[list[int]]):
    """The share of one of several ranks in each batch: together they read what one process reads, no cell twice.

    A last batch of fewer cells than there are ranks joins the one before, for no rank may be without a cell.
    """

    def __init__(self, sampler: Sampler[int], batch_size: int, *, rank: int, size: int) -> None:
        self.sampler, self.batch_size, self.rank, self.size = sampler, batch_size, rank, size
        if min(batch_size, len(sampler)) < size:  # type: ignore[arg-type]
            raise SettingError(
                f"{size} processes cannot share a batch of {min(batch_size, len(sampler))} cells; "  # type: ignore[arg-type]
                "use fewer, or a larger batch_size"
            )

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


def make_loader(
    dataset: CellDataset, *, batch_size: int, shuffle_seed: int | None = None, rank: int = 0, size: int = 1
) -> DataLoader:
    """Return batches of `dataset`, shuffled anew each epoch from `shuffle_seed`; in order where it is None.

    The order of an epoch depends on the seed and the epoch's number alone, so that a resumed run sees the same. Of
    several ranks (`size`), each gets its share of every batch.
    """
    sampler: Sampler[int] = SequentialSampler(dataset)
    if shuffle_seed is not None:
        sampler = DistributedSampler(dataset, num_replicas=1, rank=0, shuffle=True, seed=shuffle_seed)
    drawn: dict[str, Any] = {"batch_size": batch_size, "sampler": sampler}
    if size > 1:
        drawn = {"batch_sampler": SharedBatches(sampler, batch_size, rank=rank, size=size)}
    # A generator of its own: the loader would draw from the caller's random state else.
    return DataLoader(dataset, collate_fn=_as_is, generator=torch.Generator(), **drawn)


def _as_is(batch: Any) -> Any:
    return batch
