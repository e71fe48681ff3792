"""Build the compact gene tables that ship with the package.

From a folder of source tables (symbol, ensembl_gene_id, chrom, start, end, strand; alias -> symbol)::

    python tools/build_gene_tables.py FOLDER

or one table from an Ensembl GTF::

    python tools/build_gene_tables.py Homo_sapiens.GRCh38.114.gtf.gz --assembly GRCh38.114

A gene on an alternative contig or patch is kept only if no gene of the same name lies on a main chromosome or
unplaced contig. Previous and alias names are written once, in the newest table of a species; older tables have
them only for genes that the newest one lacks.
"""

import argparse
import lzma
from pathlib import Path

import pandas as pd

from scfusionttt.genome.chromosomes import is_main, karyotypic_rank
from scfusionttt.genome.readers import COLUMNS, read_gene_file
from scfusionttt.genome.tables import RELEASES, SHIPPED

SOURCES = {
    "GRCh38": "human_GRCh38_ensembl109.tsv.gz",
    "GRCh38.93": "human_GRCh38_ensembl93.tsv.gz",
    "GRCh37": "human_GRCh37.tsv.gz",
    "GRCm39": "mouse_ensembl109.tsv.gz",
    "GRCm38": "mouse_ensembl98.tsv.gz",
}
ALIASES = {"human": "human_aliases.tsv.gz", "mouse": "mouse_aliases.tsv.gz"}
#: Tables with 0-based start positions; Ensembl is 1-based.
ZERO_BASED = {"GRCh38.93"}
#: Names that a spreadsheet converted to dates (MARCH1 -> 3/1, 1-Mar), and bare numbers.
NOT_A_NAME = r"[\d/.\s-]+|\d+-[A-Z][a-z]{2}|[A-Z][a-z]{2}-\d+"
UNPLACED_CONTIG = r"[A-Z]{2}\d{6}\.\d"


def read_facts(path: Path) -> pd.DataFrame:
    """Read a table with every column as text."""
    return pd.read_csv(path, sep="\t", dtype=str, keep_default_na=False)


def read_release(folder: Path, assembly: str) -> pd.DataFrame:
    """Read one release into the standard columns, without copies of genes on alternative contigs."""
    genes = read_facts(folder / SOURCES[assembly]).rename(
        columns={
            "ensembl_gene_id": "gene_id",
            "chrom": "chromosome",
            "prev_symbols": "previous",
            "alias_symbols": "alias",
        }
    )
    genes = genes.reindex(columns=list(COLUMNS), fill_value="")
    for column in ("previous", "alias"):
        genes[column] = genes[column].str.replace(", ", "|", regex=False)
    genes[["start", "end"]] = genes[["start", "end"]].astype("int64")
    if assembly in ZERO_BASED:
        genes["start"] += 1
    primary = is_main(genes["chromosome"]) | genes["chromosome"].str.fullmatch(UNPLACED_CONTIG)
    return genes[primary | ~genes["symbol"].isin(set(genes["symbol"][primary]))]


def add_names(releases: dict[str, pd.DataFrame], aliases: pd.DataFrame) -> None:
    """Add previous and alias names to the newest release, and to older ones for genes that it lacks."""
    pairs = [_exploded(genes, column) for genes in releases.values() for column in ("previous", "alias")]
    everything = pd.concat(releases.values()).drop_duplicates("gene_id")
    ids = everything[everything["symbol"] != ""].drop_duplicates("symbol").set_index("symbol")["gene_id"]
    known = aliases.assign(kind="alias", gene_id=aliases["symbol"].map(ids), name=aliases["alias"])
    # HGNC renamed these genes after the newest release: the new name becomes an alias.
    renamed = aliases[~aliases["symbol"].isin(ids.index) & aliases["alias"].isin(ids.index)]
    renamed = renamed.assign(kind="alias", gene_id=renamed["alias"].map(ids), name=renamed["symbol"])
    names = pd.concat([*pairs, known.dropna(subset="gene_id"), renamed])[["gene_id", "name", "kind"]]
    names = names[~names["name"].str.fullmatch(NOT_A_NAME) & (names["name"] != "")]
    names = names.drop_duplicates(["gene_id", "name"])
    own = everything.set_index("gene_id")["symbol"]
    names = names[names["gene_id"].map(own) != names["name"]]
    joined = names.groupby(["gene_id", "kind"])["name"].agg("|".join).unstack(fill_value="")
    newest = set(next(iter(releases.values()))["gene_id"])
    for position, genes in enumerate(releases.values()):
        wanted = genes["gene_id"].where(~genes["gene_id"].isin(newest) | (position == 0))
        for column in ("previous", "alias"):
            genes[column] = wanted.map(joined[column]).fillna("") if column in joined else ""


def _exploded(genes: pd.DataFrame, column: str) -> pd.DataFrame:
    names = genes.assign(name=genes[column].str.split("|"), kind=column).explode("name")
    return names[["gene_id", "name", "kind"]]


def write(genes: pd.DataFrame, assembly: str, out: Path) -> None:
    """Write a table in karyotypic order; equal tables give equal files."""
    genes = genes.assign(rank=karyotypic_rank(genes["chromosome"])).sort_values(["rank", "start", "gene_id"])
    text = genes[list(COLUMNS)].to_csv(sep="\t", index=False, lineterminator="\n")
    path = out / f"{assembly}.tsv.xz"
    path.write_bytes(lzma.compress(text.encode(), preset=9 | lzma.PRESET_EXTREME))
    print(f"{path.name}: {len(genes)} genes, {path.stat().st_size} bytes")


def main() -> None:
    """Build all shipped tables from a folder of source tables, or one table from a GTF."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, help="folder with source tables, or a GTF")
    parser.add_argument("--assembly", help="name of the table to build from a GTF")
    parser.add_argument("--out", type=Path, default=SHIPPED, help="folder to write to (default: the package)")
    options = parser.parse_args()
    if options.source.is_file():
        if not options.assembly:
            parser.error("a GTF needs --assembly NAME")
        write(read_gene_file(options.source), options.assembly, options.out)
        return
    for species, assemblies in RELEASES.items():
        releases = {assembly: read_release(options.source, assembly) for assembly in assemblies}
        add_names(releases, read_facts(options.source / ALIASES[species]))
        for assembly, genes in releases.items():
            write(genes, assembly, options.out)


if __name__ == "__main__":
    main()
