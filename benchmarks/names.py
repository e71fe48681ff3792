"""Process time of resolving 20,000 human gene symbols, with the gene tables read anew and with the tables in memory.

python benchmarks/names.py
"""

import sys

if not __package__:
    sys.path[0] += "/.."  # run as a file: modules in this folder must not shadow the standard library

import pandas as pd

from benchmarks.measure import least_process_time, print_table
from scfusionttt.genome import load_genes, resolve_genes
from scfusionttt.genome.lookup import shipped_lookup
from scfusionttt.genome.tables import read_shipped

NAMES = 20_000


def main() -> None:
    """Print the least process time of three runs each."""
    names = load_genes("GRCh38.93")["symbol"].drop_duplicates().sample(NAMES, random_state=0)

    def with_tables_read() -> None:
        read_shipped.cache_clear()
        shipped_lookup.cache_clear()
        resolve_genes(names)

    calls = {"tables read anew": with_tables_read, "tables in memory": lambda: resolve_genes(names)}
    seconds = pd.DataFrame({"seconds": least_process_time(calls, repeats=3)})
    print_table(seconds.round(2), f"Resolving {NAMES:,} gene symbols")


if __name__ == "__main__":
    main()
