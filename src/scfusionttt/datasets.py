"""Public data sets: where they lie, under which licence, and whether what came is what was meant.

Files are fetched with pooch into a cache (``SCFUSIONTTT_CACHE``, or the system's own place); a download that broke off
goes on where it was.
"""

import logging
import os
import shutil
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from scfusionttt.errors import DownloadError, SettingError

if TYPE_CHECKING:
    from anndata import AnnData
    from mudata import MuData

log = logging.getLogger("scfusionttt")
_TENX = "https://cf.10xgenomics.com/samples/cell-exp"
_GEO = "https://ftp.ncbi.nlm.nih.gov/geo"


@dataclass(frozen=True)
class File:
    """A file on the web; `checksum` (``md5:...``) is None where its provider gives none."""

    url: str
    checksum: str | None = None

    @property
    def name(self) -> str:
        """The last part of the URL."""
        return self.url.rsplit("/", 1)[-1]


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """A data set: its files, and what is to be in them before any filter; None where that is not known for certain.

    `read` is None where the files come in a form that :func:`load` does not read.
    """

    title: str
    files: tuple[File, ...]
    licence: str
    source: str
    cells: int | None = None
    genes: int | None = None
    proteins: int | None = None
    read: "Callable[[list[Path]], AnnData | MuData] | None" = None


def fetch(name: str) -> list[Path]:
    """Fetch the files of a data set, unless they are in the cache.

    Parameters
    ----------
    name
        One of :data:`DATASETS`.

    Returns
    -------
    The files, in the order of ``DATASETS[name].files``.

    Raises
    ------
    SettingError
        There is no data set of this name.
    DownloadError
        A file cannot be fetched, or is not the one it should be.
    """
    if name not in DATASETS:
        raise SettingError(f"there is no data set {name!r}; choose one of {', '.join(DATASETS)}")
    return [_fetch(file, cache() / name) for file in DATASETS[name].files]


def load(name: str) -> "AnnData | MuData":
    """Fetch a data set, read it and check its size.

    Returns
    -------
    Raw counts, as :func:`scfusionttt.io.read.read` gives them: what every method of the model takes.

    Raises
    ------
    SettingError, DownloadError
        As for :func:`fetch`; also where the files are not read by this package, or hold something else.
    """
    paths = fetch(name)
    dataset = DATASETS[name]
    if dataset.read is None:
        raise SettingError(
            f"{name} is not in a form that is read here; its files are in {paths[0].parent} ({dataset.source})"
        )
    data = dataset.read(paths)
    _check_size(name, dataset, data, paths[0].parent)
    return data


def table() -> pd.DataFrame:
    """Return all data sets, one row each: title, cells, genes, proteins, licence, source, URLs and whether checked."""
    rows = {
        name: {
            "title": one.title, "cells": one.cells, "genes": one.genes, "proteins": one.proteins,
            "licence": one.licence, "source": one.source, "urls": [file.url for file in one.files],
            "checksums": all(file.checksum for file in one.files), "read": one.read is not None,
        }
        for name, one in DATASETS.items()
    }  # fmt: skip
    return pd.DataFrame.from_dict(rows, orient="index").astype({n: "Int64" for n in ("cells", "genes", "proteins")})


def cache() -> Path:
    """Return the folder that files are kept in."""
    import pooch

    return Path(os.environ.get("SCFUSIONTTT_CACHE") or pooch.os_cache("scfusionttt"))


def _fetch(file: File, folder: Path) -> Path:
    import pooch

    try:
        # pooch tells of each file by itself; ours is the one line that a user needs.
        pooch.get_logger().setLevel("WARNING")
        if not (folder / file.name).exists():
            log.info("fetching %s", file.url)
        path = pooch.retrieve(file.url, file.checksum, fname=file.name, path=folder, downloader=_resume_download)
    except (OSError, urllib.error.URLError) as error:
        reason = getattr(error, "reason", None) or error
        raise DownloadError(
            f"{file.url} cannot be fetched ({reason}); fetch it elsewhere and put it at {folder / file.name}"
        ) from error
    except ValueError as error:  # pooch's word for another checksum
        raise DownloadError(
            f"{file.url} is not the file that was meant: its checksum differs; remove {folder} and try again"
        ) from error
    return Path(path)


def _resume_download(url: str, output_file: str, _: Any) -> None:
    """Fetch `url`, from where an earlier attempt broke off if the server can."""
    part = Path(output_file).parent / f"{url.rsplit('/', 1)[-1]}.part"  # pooch moves what it asked for once it is whole
    have = part.stat().st_size if part.exists() else 0
    # Some servers refuse Python's own name.
    request = urllib.request.Request(url, headers={"User-Agent": "scfusionttt", "Range": f"bytes={have}-"})
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            goes_on = answer.status == 206
            wanted = int(answer.headers.get("Content-Length", 0)) + (have if goes_on else 0)
            with part.open("ab" if goes_on else "wb") as out:
                shutil.copyfileobj(answer, out)
    except urllib.error.HTTPError as error:
        if not (error.code == 416 and have):  # there is nothing left to send
            raise
        wanted = have
    if part.stat().st_size < wanted:
        raise OSError(f"the connection broke off after {part.stat().st_size} of {wanted} bytes; call again to go on")
    shutil.move(part, output_file)


def _check_size(name: str, dataset: Dataset, data: "AnnData | MuData", folder: Path) -> None:
    from scfusionttt.data.assemble import as_citeseq

    cite = as_citeseq(data)
    found = {
        "cells": cite.rna.n_obs,
        "genes": cite.rna.n_vars,
        "proteins": 0 if cite.protein is None else cite.protein.n_vars,
    }
    for what, number in found.items():
        wanted = getattr(dataset, what)
        if wanted is not None and number != wanted:
            raise DownloadError(
                f"{name} has {number} {what}, not {wanted}: another version was fetched; remove {folder} and try again"
            )


def _read_one(paths: "list[Path]") -> "AnnData | MuData":
    from scfusionttt.io.read import read

    return read(paths[0])


def _read_10x_archive(paths: "list[Path]") -> "AnnData | MuData":
    import tarfile

    from scfusionttt.io.read import read

    folder = paths[0].parent / "unpacked"
    with tarfile.open(paths[0]) as archive:
        archive.extractall(folder, filter="data")
    return read(next(folder.rglob("matrix.mtx*")).parent)


def _read_cbmc(paths: "list[Path]") -> "AnnData | MuData":
    """Return the human genes and the antibodies of two tables, features by cells, some mouse cells among them."""
    from anndata import AnnData
    from scipy import sparse

    chunks = pd.read_csv(paths[0], index_col=0, chunksize=2000)
    parts = [(chunk.index, chunk.columns, sparse.csr_matrix(chunk.to_numpy("float32"))) for chunk in chunks]
    names = pd.Index([name for index, _, _ in parts for name in index])
    counts = sparse.csr_matrix(sparse.vstack([part for _, _, part in parts]).T)
    human = names.str.startswith("HUMAN_")
    rna = AnnData(counts[:, human], obs=pd.DataFrame(index=parts[0][1]), var=pd.DataFrame(index=names[human].str[6:]))
    rna.obsm["protein_counts"] = pd.read_csv(paths[1], index_col=0).T.loc[rna.obs_names]
    return rna


def _tenx(name: str, title: str, release: str, cells: int, proteins: int, checksum: str | None = None) -> Dataset:
    url = f"{_TENX}/{release}/{name}/{name}_filtered_feature_bc_matrix.h5"
    files = (File(url, checksum),)
    return Dataset(
        title=title, files=files, licence="CC BY 4.0", source="10x Genomics", read=_read_one,
        cells=cells, genes=33538, proteins=proteins,
    )  # fmt: skip


#: What can be fetched, by name. The eight of the paper; the numbers are those of the files, before the paper's filters.
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
        licence="see GEO GSE96583", source="Kang et al. 2018",
    ),
    "bmcite": Dataset(
        title="bone marrow, 25 antibodies",
        files=tuple(
            File(f"{_GEO}/samples/GSM3681nnn/{sample}/suppl/{sample}_MNC_{kind}_counts.tsv.gz")
            for sample, kind in (("GSM3681518", "RNA"), ("GSM3681519", "ADT"))
        ),
        licence="see GEO GSE128639", source="Stuart et al. 2019",
    ),
}  # fmt: skip
