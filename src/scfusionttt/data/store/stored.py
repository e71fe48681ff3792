"""Cells in a sharded Zarr store, opened without the counts, which are read some cells at a time."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from scipy import sparse

from scfusionttt.data.cells import CiteSeq, feature_panels
from scfusionttt.errors import InputFileError
from scfusionttt.io.integrity import damaged, without_pickle, zarr_attributes
from scfusionttt.io.quiet_warnings import quiet
from scfusionttt.keys import INPUT, MEASURED, MODALITY, ROW, STORE

#: Increased when older versions can no longer read what is written.
FORMAT_VERSION = 1
#: Cells that are read in one piece, and cells in memory at a time.
BLOCK, WINDOW = 256, 4096


@dataclass(frozen=True, eq=False)
class StoredCiteSeq(CiteSeq):
    """Raw counts of a store: names and metadata in memory, in the order of the input cells; counts on disk.

    `rna` and `protein` have no X. The counts were checked when the store was written.

    Attributes
    ----------
    path
        Folder of the store.
    counts
        Raw counts on disk, CSR [n, g + p], cells shuffled.
    places
        [n], place of each cell on disk.
    """

    path: Path
    counts: Any
    places: np.ndarray

    def __getitem__(self, cells: Any) -> CiteSeq:
        """Return the cells chosen by a boolean mask or by positions, in memory."""
        return self.read(np.arange(len(self.places))[cells])

    def blocks(self) -> Iterator[CiteSeq]:
        """Yield all cells, a window at a time, in the order on disk."""
        order = np.argsort(self.places)
        for start in range(0, len(order), WINDOW):
            yield self.read(order[start : start + WINDOW])

    def read(self, rows: np.ndarray) -> CiteSeq:
        """Return the cells of these rows in memory, in this order.

        Raises
        ------
        InputFileError
            A shard is damaged.
        """
        counts = self._counts(self.places[rows])
        n_genes = self.rna.n_vars
        with quiet():
            rna = _with_counts(self.rna, rows, counts[:, :n_genes])
            if self.protein is None:
                return CiteSeq(rna, None, self.obs.iloc[rows])
            protein = _with_counts(self.protein, rows, counts[:, n_genes:].toarray())
            panel, measured = feature_panels(protein)
            protein.X[~measured[panel]] = np.nan
            return CiteSeq(rna, protein, self.obs.iloc[rows])

    def _counts(self, places: np.ndarray) -> sparse.csr_matrix:
        """Return the counts at these places, read in blocks."""
        order = np.argsort(places)
        ascending = places[order]
        starts = np.flatnonzero(np.diff(ascending // BLOCK, prepend=-1))
        with damaged(self.path):
            pieces = [
                self.counts[int(block[0]) : int(block[-1]) + 1][block - block[0]]
                for block in np.split(ascending, starts)[1:]  # before the first start, there is none
            ]
            return sparse.csr_matrix(sparse.vstack([self.counts[:0], *pieces], format="csr")[np.argsort(order)])


def _with_counts(cells: AnnData, rows: np.ndarray, counts: Any) -> AnnData:
    # Not a view of `cells`, which would change pandas' options, while the reader runs in its own thread.
    return AnnData(counts, obs=cells.obs.iloc[rows], var=cells.var, varm=dict(cells.varm))


def open_store(path: str | Path) -> StoredCiteSeq:
    """Open a store written by ``scfusionttt store`` and check that it is complete; no counts are read.

    Raises
    ------
    InputFileError
        The path is not a store, its version is not supported, or a part is missing or truncated.
    """
    import zarr
    from anndata.io import read_elem, sparse_dataset

    path = Path(path)
    header = zarr_attributes(path).get(STORE)
    if not isinstance(header, dict):
        raise InputFileError(f"{path} is not a store; write one with `scfusionttt store INPUT --out STORE.zarr`")
    if header.get("version") != FORMAT_VERSION:
        raise InputFileError(
            f"{path} has store format {header.get('version')}, but this version reads {FORMAT_VERSION}; "
            "write it again with `scfusionttt store`, or update scfusionttt"
        )
    _require_complete(path, header.get("files", {}))
    with damaged(path), without_pickle(path), quiet():
        group = zarr.open_group(path, mode="r")
        obs, var, measured = (read_elem(group[name]) for name in ("obs", "var", f"varm/{MEASURED}"))
        places = np.argsort(obs[ROW].to_numpy())
        obs = obs.drop(columns=ROW).iloc[places]
        measured = pd.DataFrame(measured, index=var.index, columns=obs[INPUT].cat.categories.astype(str))
        is_gene = (var[MODALITY] == "rna").to_numpy()
        rna, protein = (
            AnnData(obs=obs[[INPUT]], var=var[which], varm={MEASURED: measured[which]}) for which in (is_gene, ~is_gene)
        )
        return StoredCiteSeq(rna, protein if protein.n_vars else None, obs, path, sparse_dataset(group["X"]), places)


def _require_complete(path: Path, files: dict[str, int]) -> None:
    for name, size in files.items():
        part = path / name
        if not part.is_file():
            raise InputFileError(f"{path}: {name} is missing; copy or write the whole store again")
        if part.stat().st_size != size:
            raise InputFileError(f"{path}: {name} is truncated or changed; copy or write the whole store again")
