"""Public data sets: sources, licences, download and checks.

Files are downloaded with pooch to a cache: ``SCFUSIONTTT_CACHE``, or the default cache folder of the system. An
interrupted download is resumed.
"""

import logging
import os
import shutil
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from scfusionttt.errors import DownloadError, SettingError
from scfusionttt.io.quiet_warnings import quiet

if TYPE_CHECKING:
    from anndata import AnnData
    from mudata import MuData

log = logging.getLogger("scfusionttt")
_TENX = "https://cf.10xgenomics.com/samples/cell-exp"
_GEO = "https://ftp.ncbi.nlm.nih.gov/geo"


@dataclass(frozen=True)
class File:
    """A file to download; `checksum` (``md5:...``) is None if the provider does not publish one."""

    url: str
    checksum: str | None = None

    @property
    def name(self) -> str:
        """The last part of the URL."""
        return self.url.rsplit("/", 1)[-1]


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """A data set: its files, what reads them, and their numbers of cells, genes and proteins (None if unknown)."""

    title: str
    files: tuple[File, ...]
    licence: str
    source: str
    read: "Callable[[list[Path]], AnnData | MuData]"
    cells: int | None = None
    genes: int | None = None
    proteins: int | None = None


def fetch(name: str) -> list[Path]:
    """Download the files of a data set unless they are in the cache.

    Parameters
    ----------
    name
        One of :data:`DATASETS`.

    Returns
    -------
    list of Path
        The files, in the order of ``DATASETS[name].files``.

    Raises
    ------
    SettingError
        There is no data set of this name.
    DownloadError
        A file cannot be downloaded, or its checksum differs.
    """
    if name not in DATASETS:
        raise SettingError(f"there is no data set {name!r}; choose one of: {', '.join(DATASETS)}")
    return [_fetch(file, cache() / name) for file in DATASETS[name].files]


def load(name: str) -> "AnnData | MuData":
    """Download a data set, read it and check its size.

    Returns
    -------
    AnnData or MuData
        Raw counts, as returned by :func:`scfusionttt.read`.

    Raises
    ------
    SettingError
        There is no data set of this name.
    DownloadError
        A file cannot be downloaded, or its content has another size.
    """
    paths = fetch(name)
    dataset = DATASETS[name]
    data = dataset.read(paths)
    _check_size(name, dataset, data, paths[0].parent)
    return data


def table() -> pd.DataFrame:
    """Return a table of all data sets: title, size, licence, source, URLs, and whether there are checksums."""
    rows = {
        name: {
            "title": one.title, "cells": one.cells, "genes": one.genes, "proteins": one.proteins,
            "licence": one.licence, "source": one.source, "urls": [file.url for file in one.files],
            "checksums": all(file.checksum for file in one.files),
        }
        for name, one in DATASETS.items()
    }  # fmt: skip
    return pd.DataFrame.from_dict(rows, orient="index").astype({n: "Int64" for n in ("cells", "genes", "proteins")})


def cache() -> Path:
    """Return the folder of the downloaded files."""
    import pooch

    return Path(os.environ.get("SCFUSIONTTT_CACHE") or pooch.os_cache("scfusionttt"))


def _fetch(file: File, folder: Path) -> Path:
    import pooch

    try:
        # pooch logs several lines per file; one is enough.
        pooch.get_logger().setLevel("WARNING")
        if not (folder / file.name).exists():
            log.info("downloading %s", file.url)
        path = pooch.retrieve(file.url, file.checksum, fname=file.name, path=folder, downloader=_resume_download)
    except (OSError, HTTPException) as error:
        reason = getattr(error, "reason", None) or error
        raise DownloadError(
            f"cannot download {file.url} ({reason}); download it elsewhere and save it as {folder / file.name}"
        ) from error
    except ValueError as error:  # raised by pooch if the checksum differs
        raise DownloadError(
            f"the checksum of {file.url} differs from the expected one; remove {folder} and try again"
        ) from error
    return Path(path)


def _resume_download(url: str, output_file: str, _: Any) -> None:
    """Download `url`, resuming an interrupted download if the server supports it."""
    part = Path(output_file).parent / f"{url.rsplit('/', 1)[-1]}.part"  # pooch moves the file when it is complete
    n_received = part.stat().st_size if part.exists() else 0
    # Some servers refuse the user agent of Python.
    request = urllib.request.Request(url, headers={"User-Agent": "scfusionttt", "Range": f"bytes={n_received}-"})
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            resumed = answer.status == 206
            expected = int(answer.headers.get("Content-Length", 0)) + (n_received if resumed else 0)
            with part.open("ab" if resumed else "wb") as out:
                shutil.copyfileobj(answer, out)
    except urllib.error.HTTPError as error:
        if not (error.code == 416 and n_received):  # 416: the file was complete already
            raise
        expected = n_received
    if part.stat().st_size < expected:
        raise OSError(f"the connection was lost after {part.stat().st_size} of {expected} bytes; try again to resume")
    shutil.move(part, output_file)


def _check_size(name: str, dataset: Dataset, data: "AnnData | MuData", folder: Path) -> None:
    from scfusionttt.data.assemble import as_citeseq

    cite = as_citeseq(data)
    sizes = {
        "cells": cite.rna.n_obs,
        "genes": cite.rna.n_vars,
        "proteins": 0 if cite.protein is None else cite.protein.n_vars,
    }
    for what, number in sizes.items():
        expected = getattr(dataset, what)
        if expected is not None and number != expected:
            raise DownloadError(
                f"{name} has {number} {what} instead of {expected}; remove {folder} and download it again"
            )
    if dataset.proteins is None and not sizes["proteins"]:
        raise DownloadError(f"{name} is CITE-seq, but no proteins were found; remove {folder} and download it again")


def _read_one(paths: "list[Path]") -> "AnnData | MuData":
    from scfusionttt.io.read import read

    return read(paths[0])


def _read_10x_archive(paths: "list[Path]") -> "AnnData | MuData":
    from scfusionttt.io.read import read

    return read(next(_unpacked(paths[0]).rglob("matrix.mtx*")).parent)


def _unpacked(archive: Path) -> Path:
    import tarfile

    folder = archive.parent / "unpacked"
    with tarfile.open(archive) as tar:
        tar.extractall(folder, filter="data")
    return folder


def _read_cbmc(paths: "list[Path]") -> "AnnData | MuData":
    """Return the human genes and the antibodies of two tables; some of the cells are mouse cells."""
    cells = _read_tables(paths)
    human = cells.var_names.str.startswith("HUMAN_")
    cells = cells[:, human].copy()
    cells.var_names = cells.var_names.str[6:]
    return cells


def _read_tables(paths: "list[Path]") -> "AnnData":
    """Return the cells that two tables of features by cells, of RNA and of proteins, have in common."""
    rna, protein = map(_read_table, paths)
    rna = rna[rna.obs_names.isin(protein.obs_names)].copy()
    rna.obsm["protein_counts"] = protein[rna.obs_names].to_df()
    return rna


def _read_table(path: Path) -> "AnnData":
    """Read features by cells, some rows at a time; whether or not the column of their names has a head."""
    from anndata import AnnData
    from scipy import sparse

    separator = "," if ".csv" in path.suffixes else "\t"
    chunks = pd.read_csv(path, sep=separator, index_col=0, chunksize=500)
    parts = [(chunk.index, chunk.columns, sparse.csr_matrix(chunk.to_numpy("float32"))) for chunk in chunks]
    names = pd.Index([name for index, _, _ in parts for name in index]).astype(str)
    counts = sparse.csr_matrix(sparse.vstack([part for _, _, part in parts]).T)
    return AnnData(counts, obs=pd.DataFrame(index=parts[0][1]), var=pd.DataFrame(index=names))


def _read_ifnb(paths: "list[Path]") -> "AnnData | MuData":
    """Return the second batch: control and stimulated cells, each a matrix of genes by cells in the archive.

    The table of the cells has them in the order of the matrices, with their donor (``ind``), ``stim``, cell type
    (``cell``) and ``multiplets``.
    """
    from anndata import AnnData
    from scipy import io, sparse

    archive, genes, cells = paths
    folder = _unpacked(archive)
    files = (folder / name for name in ("GSM2560248_2.1.mtx.gz", "GSM2560249_2.2.mtx.gz"))
    with quiet():
        parts = [sparse.csr_matrix(io.mmread(file)).astype("float32") for file in files]
    obs = pd.read_csv(cells, sep="\t", index_col=0)
    obs.index = obs["stim"].astype(str) + "_" + obs.index.str.extract("([ACGT]+)", expand=False)  # of both: twice
    var = pd.read_csv(genes, sep="\t", header=None, names=["gene_ids", "symbol"]).set_index("symbol")
    counts = sparse.csr_matrix(sparse.hstack(parts).T)
    if counts.shape != (len(obs), len(var)):
        raise DownloadError(
            f"{archive} has {counts.shape[0]} cells and {counts.shape[1]} genes, but {cells.name} and {genes.name} "
            f"list {len(obs)} and {len(var)}; remove {archive.parent} and download it again"
        )
    adata = AnnData(counts, obs=obs.drop(columns=["tsne1", "tsne2"]), var=var.rename_axis(None))
    adata.var_names_make_unique()
    return adata


def _tenx(name: str, title: str, release: str, cells: int, proteins: int, checksum: str | None = None) -> Dataset:
    url = f"{_TENX}/{release}/{name}/{name}_filtered_feature_bc_matrix.h5"
    files = (File(url, checksum),)
    return Dataset(
        title=title, files=files, licence="CC BY 4.0", source="10x Genomics", read=_read_one,
        cells=cells, genes=33538, proteins=proteins,
    )  # fmt: skip


#: The eight data sets of the paper by name, with the sizes of the files before the filters of the paper.
DATASETS: dict[str, Dataset] = {
    "pbmc5k": _tenx(
        "5k_pbmc_protein_v3", "PBMC, 32 antibodies", "3.0.2", 5247, 32, "md5:3366a47283177fe9af143d5819fad61f"
    ),
    "pbmc10k": _tenx("pbmc_10k_protein_v3", "PBMC, 17 antibodies", "3.0.0", 7865, 17),
    "malt10k": _tenx("malt_10k_protein_v3", "MALT tumour, 17 antibodies", "3.0.0", 8412, 17),
    "spl111": Dataset(
        title="mouse spleen and lymph node, 111 antibodies",
        files=(File("https://github.com/YosefLab/totalVI_reproducibility/raw/master/data/spleen_lymph_111.h5ad"),),
        licence="see GEO GSE150599", source="Gayoso et al. 2021, totalVI", cells=16828, read=_read_one,
    ),
    "pbmc3k": Dataset(
        title="PBMC, RNA only",
        files=(File(f"{_TENX}/1.1.0/pbmc3k/pbmc3k_filtered_gene_bc_matrices.tar.gz"),),
        licence="CC BY 4.0", source="10x Genomics", cells=2700, genes=32738, proteins=0, read=_read_10x_archive,
    ),
    "cbmc": Dataset(
        title="cord blood, 13 antibodies",
        files=tuple(
            File(f"{_GEO}/series/GSE100nnn/GSE100866/suppl/GSE100866_CBMC_8K_13AB_10X-{kind}_umi.csv.gz")
            for kind in ("RNA", "ADT")
        ),
        licence="see GEO GSE100866", source="Stoeckius et al. 2017", cells=8617, proteins=13, read=_read_cbmc,
    ),
    "ifnb": Dataset(
        title="PBMC, RNA only, with and without interferon",
        files=tuple(
            File(f"{_GEO}/series/GSE96nnn/GSE96583/suppl/GSE96583_{part}")
            for part in ("RAW.tar", "batch2.genes.tsv.gz", "batch2.total.tsne.df.tsv.gz")
        ),
        licence="see GEO GSE96583", source="Kang et al. 2018", cells=29065, genes=35635, proteins=0, read=_read_ifnb,
    ),
    "bmcite": Dataset(
        title="bone marrow, 25 antibodies",
        files=tuple(
            File(f"{_GEO}/samples/GSM3681nnn/{sample}/suppl/{sample}_MNC_{kind}_counts.tsv.gz")
            for sample, kind in (("GSM3681518", "RNA"), ("GSM3681519", "ADT"))
        ),
        licence="see GEO GSE128639", source="Stuart et al. 2019", proteins=25, read=_read_tables,
    ),
}  # fmt: skip
