"""Gene tables: five Ensembl releases shipped with the package, or a custom file.

========== ======= ======= ====================================================================
assembly   species Ensembl purpose
========== ======= ======= ====================================================================
GRCh38     human   109     default; has the previous and alias symbols (HGNC)
GRCh38.93  human   93      10x reference 3.0.0; clone names that later releases dropped
GRCh37     human   75, 87  hg19 data; names such as RP11-206L10.2
GRCm39     mouse   109     default; has the alias symbols (MGI)
GRCm38     mouse   98      10x reference mm10-2020
========== ======= ======= ====================================================================
"""

from functools import lru_cache
from pathlib import Path

import pandas as pd

from scfusionttt.errors import InputFileError
from scfusionttt.genome.readers import COLUMNS, read_gene_file

SHIPPED = Path(__file__).parent / "tables_data"

#: Shipped assemblies per species in lookup order, newest first.
RELEASES = {"human": ("GRCh38", "GRCh38.93", "GRCh37"), "mouse": ("GRCm39", "GRCm38")}
ASSEMBLIES = tuple(assembly for releases in RELEASES.values() for assembly in releases)


def load_genes(assembly: str | Path = "GRCh38") -> pd.DataFrame:
    """Return the genes of an assembly or of a custom file.

    Parameters
    ----------
    assembly
        One of `ASSEMBLIES`, or the path of a table (.tsv, .csv) or of an Ensembl / GENCODE GTF, plain or compressed.

    Returns
    -------
    DataFrame, one row per gene: symbol (the gene id if the release has none), gene_id, chromosome, start and
    end (1-based, inclusive, base pairs), strand (+ or -), previous and alias (other names joined by "|").

    Raises
    ------
    InputFileError
        The assembly is not shipped and no such file exists, or the file is not a gene table.
    """
    if assembly not in ASSEMBLIES:
        return _read_own(assembly)
    genes = read_shipped(str(assembly)).copy()
    newest = next(releases[0] for releases in RELEASES.values() if assembly in releases)
    if assembly != newest:
        named = read_shipped(newest).set_index("gene_id")
        for column in ("previous", "alias"):
            genes[column] = genes["gene_id"].map(named[column]).fillna(genes[column])
    return genes


@lru_cache(maxsize=len(ASSEMBLIES))
def read_shipped(assembly: str) -> pd.DataFrame:
    """Read a shipped table as stored (do not modify it); older releases lack names that the newest has."""
    dtypes = {column: "int64" if column in {"start", "end"} else "str" for column in COLUMNS}
    genes = pd.read_csv(SHIPPED / f"{assembly}.tsv.xz", sep="\t", dtype=dtypes, keep_default_na=False)
    genes["symbol"] = genes["symbol"].where(genes["symbol"] != "", genes["gene_id"])
    return genes


def _read_own(path: str | Path) -> pd.DataFrame:
    if isinstance(path, str) and not Path(path).exists() and "/" not in path and "." not in path:
        raise InputFileError(f"gene table {path}: neither a file nor one of {', '.join(ASSEMBLIES)}")
    return read_gene_file(path)
