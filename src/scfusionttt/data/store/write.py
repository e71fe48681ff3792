"""Write inputs to one sharded Zarr store, with only some cells in memory at a time."""

import logging
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from anndata.utils import make_index_unique
from scipy import sparse

from scfusionttt.data.cells import CiteSeq, count_findings, require_rna
from scfusionttt.data.findings import Finding, named, require_usable
from scfusionttt.data.store.join import Joined, join_features
from scfusionttt.data.store.sources import Source, naming
from scfusionttt.data.store.stored import BLOCK, FORMAT_VERSION, WINDOW
from scfusionttt.data.transforms import library_sizes
from scfusionttt.data.validate import empty_proteins, highest_counts, unfiltered
from scfusionttt.errors import InputDataError, OutputError, name_some
from scfusionttt.io.atomic import check_target, replacing
from scfusionttt.io.quiet_warnings import quiet
from scfusionttt.keys import INPUT, MEASURED, ROW, STORE
from scfusionttt.labels import class_names

log = logging.getLogger("scfusionttt")

#: Number of blocks, drawn from all inputs, whose cells are shuffled together.
TOGETHER = 32
#: Values per chunk (the smallest unit of reading) and per shard (a file).
CHUNK, SHARD = 2**16, 2**22
#: Bytes per value on disk, including its column index; measured on simulated and real counts.
STORED_BYTES = 2.0


def write_store(
    sources: Sequence[Source], path: str | Path, *, seed: int = 0, drop_empty: bool = False, species: str | None = None
) -> int:
    """Write a store with all cells of the inputs; return their number.

    Blocks of cells are drawn at random from all inputs and shuffled 32 at a time, so that neighbours on disk are a
    mixture. ``varm["store_measured"]`` marks the features measured in each input: missing is not zero.

    Parameters
    ----------
    sources
        Inputs from `open_source`.
    path
        Folder that does not exist yet.
    seed
        Seed of the cell order.
    drop_empty
        Whether to leave out cells without RNA counts instead of raising an error.
    species
        ``human`` or ``mouse``; inferred from the gene names if None.

    Raises
    ------
    UserError
        An input cannot be used, or the store cannot be written.
    """
    path = Path(path)
    check_store_path(path)
    names = input_names([source.path for source in sources])
    if not any(source.n_cells for source in sources):
        raise InputDataError(f"no cells in {name_some([source.path for source in sources])}; choose files with counts")
    joined = join_features([_read(source, slice(0, 1)) for source in sources], species=species)
    seen = [_Seen() for _ in sources]
    with replacing(path) as temporary, quiet():
        writer = _Writer(temporary, joined)
        for mixture in _mixtures(sources, joined, names, np.random.default_rng(seed), drop_empty, seen):
            writer.append(*mixture)
        n_cells = writer.finish()
    for source, cells in zip(sources, seen, strict=True):
        for finding in cells.findings():
            log.warning("warning: %s: %s", source.path, finding)
    return n_cells


def input_names(paths: Sequence[Path]) -> list[str]:
    """Return the name of each input: that of the file or, if several share it, of the nearest folder that differs.

    Raises
    ------
    InputDataError
        Their paths differ in no folder.
    """
    parts = [[*path.parent.parts, path.stem] for path in map(Path, map(os.path.abspath, paths))]
    own = [part[-1] for part in parts]
    for depth in range(1, min(map(len, parts)) + 1):
        names = [name if own.count(name) == 1 else part[-depth] for name, part in zip(own, parts)]
        if len(set(names)) == len(names):
            return names
    raise InputDataError(
        f"two inputs have the same name ({', '.join(own)}), which must identify their cells; rename one"
    )


def check_store_path(path: Path) -> None:
    """Raise OutputError, before the work, if no store can be written to `path`."""
    if path.exists():
        raise OutputError(f"{path} exists; remove it or choose another name")
    check_target(path, folder=True)


def _mixtures(
    sources: Sequence[Source], joined: Joined, names: list[str], rng: np.random.Generator, drop_empty: bool,
    seen: list["_Seen"],
) -> Iterator[tuple[sparse.csr_matrix, pd.DataFrame]]:  # fmt: skip
    """Yield counts [m, f] and obs of shuffled cells from some blocks, and add the cells of each input to `seen`."""
    first = np.cumsum([0, *(source.n_cells for source in sources)])
    blocks = [
        (number, slice(start, min(start + BLOCK, source.n_cells)))
        for number, source in enumerate(sources)
        for start in range(0, source.n_cells, BLOCK)
    ]
    drawn = rng.permutation(len(blocks))
    for start in range(0, len(drawn), TOGETHER):
        some, counts, tables = drawn[start : start + TOGETHER], [], []
        for number, rows in (blocks[i] for i in some):
            cite = _read(sources[number], rows)
            kept = _not_empty(sources[number], cite, drop_empty=drop_empty)
            seen[number].add(cite[kept])
            counts.append(_placed(cite, joined, number)[kept])
            origin = {INPUT: pd.Categorical.from_codes(np.full(cite.rna.n_obs, number), categories=pd.Index(names))}
            tables.append(cite.obs.assign(**origin, **{ROW: first[number] + np.arange(rows.start, rows.stop)})[kept])
        order = rng.permutation(sum(map(len, tables)))
        yield sparse.csr_matrix(sparse.vstack(counts, format="csr")[order]), pd.concat(tables).iloc[order]
        log.info("%d of %d blocks of cells written", start + len(some), len(blocks))


class _Seen:
    """What warnings of an input need to know of its cells."""

    def __init__(self) -> None:
        self.sizes: list[np.ndarray] = []
        self.proteins, self.highest = pd.Index([]), np.array([])

    def add(self, cite: CiteSeq) -> None:
        """Add some cells."""
        self.sizes.append(library_sizes(cite.rna.X))
        if cite.protein is not None:
            highest = highest_counts(cite.protein.X)
            self.highest = np.fmax(self.highest, highest) if len(self.proteins) else highest
            self.proteins = cite.protein.var_names

    def findings(self) -> list[Finding]:
        """Return the warnings of all cells together."""
        return [*unfiltered(np.concatenate([*self.sizes, []])), *empty_proteins(self.proteins, self.highest)]


def _read(source: Source, rows: slice) -> CiteSeq:
    """Return checked cells."""
    cite = source.read(rows)
    with naming(source.path):
        require_rna(cite, "a store")
        require_usable(count_findings(cite))
    return cite


def _not_empty(source: Source, cite: CiteSeq, *, drop_empty: bool) -> np.ndarray:
    """Return which cells have RNA counts, [n] bool."""
    kept = library_sizes(cite.rna.X) > 0
    if not kept.all():
        empty = named(list(cite.rna.obs_names[~kept]), "cell")
        if not drop_empty:
            for finding in unfiltered(_library_sizes(source)):
                raise InputDataError(f"{source.path}: {finding}")
            raise InputDataError(f"{source.path}: no RNA counts in {empty}; leave them out with drop_empty")
        log.info("%s: %s without RNA counts left out", source.path, empty)
    return kept


def _library_sizes(source: Source) -> np.ndarray:
    """Return the RNA counts of each cell of a source, [n]."""
    rows = [slice(start, min(start + WINDOW, source.n_cells)) for start in range(0, source.n_cells, WINDOW)]
    return np.concatenate([library_sizes(source.read(part).rna.X) for part in rows])


def _placed(cite: CiteSeq, joined: Joined, number: int) -> sparse.csr_matrix:
    """Return the counts of both modalities in the columns of the store, [n, f]; NaN is kept."""
    rna, n_features = cite.rna.X, len(joined.var)
    placed = sparse.csr_matrix(
        (rna.data, joined.genes[number][rna.indices], rna.indptr), shape=(rna.shape[0], n_features)
    )
    if cite.protein is not None:
        protein = sparse.csr_matrix(cite.protein.X)
        columns = joined.proteins[number][protein.indices]
        placed = placed + sparse.csr_matrix((protein.data, columns, protein.indptr), shape=placed.shape)
    placed.sort_indices()
    return placed


class _Writer:
    """Appends cells to a new store."""

    def __init__(self, path: Path, joined: Joined) -> None:
        import zarr
        from anndata.io import write_elem
        from zarr.codecs import BloscCodec, Crc32cCodec

        self.path, self.joined = path, joined
        self.group: Any = zarr.open_group(path, mode="w", zarr_format=3)
        packed = BloscCodec(cname="zstd", clevel=1, shuffle="shuffle", typesize=4)
        layout = {
            "chunks": (CHUNK,), "shards": (SHARD,), "compressors": (packed, Crc32cCodec()), "indptr_dtype": np.int64,
        }  # fmt: skip
        empty = sparse.csr_matrix(np.empty((0, len(joined.var)), dtype=np.float32))
        write_elem(self.group, "X", empty, dataset_kwargs=layout)
        self.tables: list[pd.DataFrame] = []

    def append(self, counts: sparse.csr_matrix, obs: pd.DataFrame) -> None:
        """Append cells."""
        from anndata.io import sparse_dataset

        sparse_dataset(self.group["X"]).append(counts)
        self.tables.append(obs)

    def finish(self) -> int:
        """Write cell and feature tables and the list of files; return the number of cells."""
        from anndata.io import write_elem

        obs = _writable(pd.concat(self.tables))
        if not len(obs):
            raise InputDataError("every cell is empty (no RNA counts); check that these are the right matrices")
        if not obs.index.is_unique:  # barcodes of two samples
            obs.index = obs[INPUT].astype(str) + ":" + obs.index
        repeated = obs.index[obs.index.duplicated()].unique()
        if len(repeated):
            raise InputDataError(f"{named(repeated, 'cell name')} within one input; make them unique")
        write_elem(self.group, "obs", obs)
        write_elem(self.group, "var", self.joined.var)
        write_elem(self.group, "varm", {MEASURED: self.joined.measured})
        files = {
            str(part.relative_to(self.path)): part.stat().st_size
            for part in sorted(self.path.rglob("*"))
            if part.is_file() and part.name != "zarr.json"
        }
        header = {"version": FORMAT_VERSION, "files": files}
        self.group.attrs.update({"encoding-type": "anndata", "encoding-version": "0.1.0", STORE: header})
        return len(obs)


def _writable(obs: pd.DataFrame) -> pd.DataFrame:
    """Convert text and columns of mixed types to categories; 1, 1.0 and "1" of different inputs are the same one.

    AnnData cannot write nullable floats, which nullable integers of one input and floats of another become, names of
    cells of pandas' string type, and an index that is called like a column with other values, as one that only some
    inputs have. Zarr cannot hold slashes in the names of columns.
    """
    obs = obs.set_axis(obs.index.astype(str).rename(None))
    obs = obs.astype({name: "float64" for name in obs.select_dtypes(include=["Float32", "Float64"]).columns})
    for column in obs.select_dtypes(include=["object", "string"]).columns:
        values = obs[column]
        names = pd.Series(class_names(values), index=obs.index)
        obs[column] = names.where(values.notna()).astype("category")
    obs.columns = make_index_unique(obs.columns.astype(str).str.replace("/", "_"))
    return obs
