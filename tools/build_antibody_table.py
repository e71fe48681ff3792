"""Build the table of antigens and their coding genes that ships with the package.

    python tools/build_antibody_table.py FOLDER

FOLDER contains totalseq_catalogue.csv.gz, published_panels.csv.gz and mouse_totalseq_111.csv. If they disagree, the
catalogue takes precedence over the panels, and antibody_corrections.tsv, next to this script, over both. If no source
names a mouse gene, the human symbol in mouse spelling is used, provided that such a gene exists.
"""

import argparse
from pathlib import Path

import pandas as pd

from scfusionttt.genome.antibodies import TABLE
from scfusionttt.genome.antibody_names import antigen, is_hashtag, is_isotype, key, spellings
from scfusionttt.genome.chromosomes import is_main
from scfusionttt.genome.tables import load_genes

#: Words in brackets that are not names of an antigen: "CD29 (human)", "CD26 (Adenosine)".
REMARKS = {"human", "mouse", "Adenosine", "early B lineage", "iNKT cell"}
CORRECTIONS = Path(__file__).with_name("antibody_corrections.tsv")


def read(path: Path, separator: str = ",") -> pd.DataFrame:
    """Read a table with every column as text."""
    return pd.read_csv(path, sep=separator, dtype=str, keep_default_na=False)


def first_gene(symbols: str, known: set[str]) -> str:
    """Return the first known gene of a list such as "ITGAL, ITGB2"."""
    return next((symbol for symbol in symbols.split(", ") if symbol in known), "")


def human_facts(folder: Path, known: set[str]) -> pd.DataFrame:
    """Return antigens and human symbols, first those of the catalogue, then of the panels, most frequent first."""
    catalogue = read(folder / "totalseq_catalogue.csv.gz")
    panels = read(folder / "published_panels.csv.gz")
    facts = []
    for source in (catalogue, panels):
        pairs = source[["Antigen", "HGNC_SYMBOL"]].value_counts().reset_index()
        facts.append(pairs.rename(columns={"Antigen": "antigen", "HGNC_SYMBOL": "human"}))
    table = pd.concat(facts, ignore_index=True)
    table["human"] = [first_gene(symbols, known) for symbols in table["human"]]
    return table[table["human"] != ""]


def second_names(table: pd.DataFrame) -> pd.DataFrame:
    """Return unambiguous names in brackets, as in "CD274 (B7-H1, PD-L1)", as antigens of the same gene."""
    inside = table["antigen"].str.extract(r"\(([^)]*)\)", expand=False).str.split(", ")
    names = table.assign(antigen=inside).explode("antigen").dropna(subset="antigen")
    names = names[~names["antigen"].isin(REMARKS)]
    genes = names.replace("", pd.NA).groupby(names["antigen"].map(key))[["human", "mouse"]].transform("nunique")
    return names[genes.max(axis=1) == 1]


def build(folder: Path) -> pd.DataFrame:
    """Return antigen, human and mouse gene, one row per normalised spelling."""
    human, mouse = load_genes("GRCh38"), load_genes("GRCm39")
    known = set(human["symbol"][is_main(human["chromosome"])])
    known_mouse = set(mouse["symbol"])
    panel = read(folder / "mouse_totalseq_111.csv")[["Specificity", "RNA"]]
    panel = panel.rename(columns={"Specificity": "antigen", "RNA": "mouse"})
    panel["mouse"] = panel["mouse"].where(panel["mouse"].isin(known_mouse), "")
    corrections = read(CORRECTIONS, "\t")[["antigen", "human", "mouse"]]
    facts = pd.concat([human_facts(folder, known), panel], ignore_index=True).fillna("")
    corrected = {key(name) for name in corrections["antigen"]}
    # The correction of "TCR a/b" also applies to "TCR a/b (IP26)".
    facts = facts[[corrected.isdisjoint(map(key, spellings(name))) for name in facts["antigen"]]]
    facts = facts[[not (is_isotype(name) or is_hashtag(name)) for name in facts["antigen"]]]
    table = pd.concat([corrections, facts, second_names(facts)], ignore_index=True)
    table["antigen"] = [antigen(name) for name in table["antigen"]]
    table["key"] = table["antigen"].map(key)
    filled = table.replace("", pd.NA).groupby("key", sort=False)[["antigen", "human", "mouse"]].first().fillna("")
    spelt = filled["human"].str.capitalize()
    derive = (filled["mouse"] == "") & spelt.isin(known_mouse) & ~filled.index.isin(corrected)
    filled["mouse"] = filled["mouse"].where(~derive, spelt)
    return filled.sort_index()


def main() -> None:
    """Write the table and print its size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="folder with the three tables")
    parser.add_argument("--out", type=Path, default=TABLE, help="file to write (default: in the package)")
    options = parser.parse_args()
    table = build(options.folder)
    table.to_csv(options.out, sep="\t", index=False, lineterminator="\n")
    print(f"{options.out.name}: {len(table)} antigens, {(table['mouse'] != '').sum()} with a mouse gene")


if __name__ == "__main__":
    main()
