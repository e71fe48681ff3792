"""Read gene coordinates from a user's own file: a table with a header, or a GTF."""

import gzip
import lzma
import zlib
from pathlib import Path

import pandas as pd

from scfusionttt.errors import InputFileError, name_some
from scfusionttt.genome.chromosomes import plain_names

#: Columns of every gene table; previous and alias are names joined by "|".
COLUMNS = ("symbol", "gene_id", "chromosome", "start", "end", "strand", "previous", "alias")

_GTF_COLUMNS = ["chromosome", "source", "feature", "start", "end", "score", "strand", "frame", "attributes"]
_SYNONYMS = {
    "gene_name": "symbol",
    "gene_symbol": "symbol",
    "gene": "symbol",
    "ensembl_gene_id": "gene_id",
    "ensembl_id": "gene_id",
    "chrom": "chromosome",
    "chr": "chromosome",
    "seqname": "chromosome",
}
_UNREADABLE = (OSError, EOFError, UnicodeDecodeError, lzma.LZMAError, zlib.error, gzip.BadGzipFile)


def read_gene_file(path: str | Path) -> pd.DataFrame:
    """Read a gene table (.tsv, .csv) or an Ensembl / GENCODE GTF (.gtf), each plain, .gz or .xz.

    Returns
    -------
    DataFrame with the columns `COLUMNS`, one row per gene; start and end are 1-based and inclusive. Genes without a
    symbol get their id, as in 10x references.

    Raises
    ------
    InputFileError
        The file is missing or unreadable, lacks columns, or has no genes.
    """
    path = Path(path)
    if not path.is_file():
        raise InputFileError(f"gene table {path}: no such file; use a TSV or a GTF")
    try:
        genes = read_gtf(path) if ".gtf" in path.name.lower() else _read_table(path)
    except (*_UNREADABLE, pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        reason = " ".join(str(error).split())
        raise InputFileError(f"gene table {path}: cannot be read as a table or GTF ({reason})") from error
    return standard_form(genes, str(path))


def read_gtf(path: str | Path) -> pd.DataFrame:
    """Read the ``gene`` lines of a GTF; the gene's name is ``gene_name``, or ``gene`` as in NCBI's files."""
    lines = pd.read_csv(path, sep="\t", comment="#", header=None, names=_GTF_COLUMNS, dtype=str, quoting=3)
    genes = lines[lines["feature"] == "gene"]
    if genes.empty:
        raise InputFileError(f"gene table {path}: no line has the feature type 'gene'; use an Ensembl or GENCODE GTF")
    attributes = genes["attributes"]
    symbol = _attribute(attributes, "gene_name")
    symbol = symbol.where(symbol.notna(), _attribute(attributes, "gene"))
    return pd.DataFrame(
        {
            "symbol": symbol,
            "gene_id": _attribute(attributes, "gene_id").str.replace(r"\.\d+(?=$|_)", "", regex=True),
            **{column: genes[column] for column in ("chromosome", "start", "end", "strand")},
        }
    )


def _attribute(attributes: pd.Series, key: str) -> pd.Series:
    return attributes.str.extract(rf'(?:^|;)\s*{key} "([^"]*)"', expand=False)


def _read_table(path: Path) -> pd.DataFrame:
    separator = "," if ".csv" in path.name.lower() else "\t"
    genes = pd.read_csv(path, sep=separator, dtype=str, keep_default_na=False)
    genes.columns = [str(column).strip().lower() for column in genes.columns]
    return genes


def standard_form(genes: pd.DataFrame, source: str) -> pd.DataFrame:
    """Convert a table to the form of `read_gene_file`; an InputFileError reports missing or invalid columns."""
    for synonym, column in _SYNONYMS.items():
        if column not in genes:
            genes = genes.rename(columns={synonym: column})
    missing = [column for column in ("symbol", "chromosome", "start") if column not in genes]
    if missing:
        raise InputFileError(
            f"gene table {source}: no column {', '.join(missing)}; "
            "a table needs symbol, chromosome and start, and may have gene_id, end, strand, previous and alias"
        )
    if genes.empty:
        raise InputFileError(f"gene table {source}: has no genes")
    genes = genes.reindex(columns=list(COLUMNS)).astype(object).reset_index(drop=True)
    genes = genes.where(genes.notna(), "")
    nameless = (genes["symbol"] == "") & (genes["gene_id"] == "")
    if nameless.any():
        raise InputFileError(f"gene table {source}: {nameless.sum()} genes have neither symbol nor gene_id; name them")
    genes["symbol"] = genes["symbol"].where(genes["symbol"] != "", genes["gene_id"])
    genes["end"] = genes["end"].where(genes["end"] != "", genes["start"])
    for column in ("start", "end"):
        numbers = pd.to_numeric(genes[column], errors="coerce")
        bad = genes[numbers.isna() | (numbers % 1 != 0)]
        if len(bad):
            names = name_some(bad["symbol"].tolist())
            raise InputFileError(f"gene table {source}: {column} is not a whole number for {names}; correct the column")
        genes[column] = numbers.astype("int64")
    genes["chromosome"] = plain_names(genes["chromosome"])
    return genes
