"""Resolve antibody names to the genes that encode their antigens."""

from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

import pandas as pd

from scfusionttt.errors import InputFileError
from scfusionttt.genome.antibody_names import (
    antigen,
    heads,
    is_bookkeeping,
    is_hashtag,
    is_isotype,
    is_marked,
    key,
    spellings,
)
from scfusionttt.genome.names import as_text
from scfusionttt.genome.resolve import Resolution, resolve_genes, supported

#: Columns antigen, human, mouse (coding genes; of a carbohydrate its enzyme's gene, of a complex that of one chain).
TABLE = Path(__file__).parent / "tables_data" / "antibodies.tsv"

#: Folded antigen names that are gene symbols, too, of another gene (LOX) or in one of the species.
_ALSO_GENES = ("lox", "rae1", "gpr56", "icosl", "il4ra", "il6ra")

_WITHOUT_SEPARATORS = str.maketrans("", "", " -_./")

#: Values that an override may have instead of a gene symbol.
_KINDS = ("isotype", "hashtag", "bookkeeping")


def resolve_antibodies(
    names: Iterable[object],
    *,
    species: str = "human",
    overrides: pd.DataFrame | str | Path | None = None,
) -> Resolution:
    """Find the coding gene of each antibody.

    Isotype controls and hashtags are recognised by their names. Additions of vendors and pipelines (``_TotalSeqB``,
    ``anti-human``, ``Hu.``, ``adt_``, a clone) are removed, case, separators and Greek letters are normalised, and the
    antigen is looked up in the curated table (`TABLE`), then among gene names. Isoforms such as CD45RA and CD45RO have
    the same gene.

    Parameters
    ----------
    names
        Antibody names, [p].
    species
        "human" or "mouse".
    overrides
        Corrections: a DataFrame, or the path of a .tsv or .csv, with the columns name and symbol; the symbol may also
        be "isotype", "hashtag" or "bookkeeping", or empty for an antibody without a gene.

    Returns
    -------
    Resolution
        Its table also has the column kind: "antibody", "isotype", "hashtag", or "bookkeeping" for rows such as
        ``unmapped``. Only antibodies have a gene; the status of the others is "lost" and `how` is their kind.

    Raises
    ------
    InputFileError
        The overrides are unreadable or lack a column.
    FeatureError
        The species is not supported.
    """
    text, species = as_text(names), supported(species)
    own = _read_overrides(overrides)
    kind = pd.Series([_kind(name, own) for name in text], dtype=object)
    symbols = pd.Series([_symbol(name, own, species) for name in text], dtype=object).where(kind == "antibody", "")
    how = pd.Series(["override" if key(name) in own else "antibody" for name in text], dtype=object)
    genes = resolve_genes(symbols, species=species).table
    genes["how"] = how.where(genes["status"] == "matched", genes["how"])
    for names_of in dict.fromkeys((species, "human")):
        left = (kind == "antibody") & (genes["status"] != "matched") & (how != "override")
        found = _as_genes(text[left].map(spellings).explode().dropna(), names_of, species)
        genes.loc[found.index, found.columns] = found
    genes["name"] = text
    genes["kind"] = kind
    genes["how"] = genes["how"].where(kind == "antibody", kind)
    return Resolution(genes, species)


def genes_of(antigens: Iterable[str], species: str) -> dict[str, str]:
    """Return the coding gene of each antigen that is known in exactly this spelling."""
    table = curated(species)
    found = {antigen: table.get(key(antigen), "") for antigen in antigens}
    for names_of in dict.fromkeys((species, "human")):
        left = pd.Series([antigen for antigen, symbol in found.items() if not symbol], dtype=object)
        genes = _as_genes(left, names_of, species)
        genes = genes[(genes["status"] == "matched") & (genes["how"] != "made unique")]
        found.update(zip(left[genes.index], genes["symbol"], strict=True))
    return {antigen: symbol for antigen, symbol in found.items() if symbol}


@lru_cache
def curated(species: str) -> dict[str, str]:
    """Return the coding gene of each antigen in the table, indexed by `key`."""
    table = _table()
    return {key(name): symbol for name, symbol in zip(table["antigen"], table[species]) if symbol}


@lru_cache
def _table() -> pd.DataFrame:
    return pd.read_csv(TABLE, sep="\t", dtype=str, keep_default_na=False)


def read_as_antibodies(names: Iterable[object]) -> list[str]:
    """Return the names that antibodies have and genes have not, such as CD45RA, CD3_TotalSeqB or IgG1 control."""
    antigens = _antigens(unlike_genes=True)
    return [name for name in as_text(names) if _folded(name) in antigens or is_marked(name)]


def antigen_share(names: Iterable[object]) -> float:
    """Return the fraction of names that are known antigens, or marked as antibodies."""
    text = [name for name in as_text(names) if not is_bookkeeping(name)]
    return sum(is_marked(name) or _folded(antigen(name)) in _antigens() for name in text) / max(len(text), 1)


@lru_cache
def _antigens(*, unlike_genes: bool = False) -> frozenset[str]:
    """Return the folded antigen names in the table, or only those that are not symbols of genes as well."""
    table = _table()
    antigens, symbols = table["antigen"].map(_folded), [table[name].map(_folded) for name in ("human", "mouse")]
    if not unlike_genes:
        return frozenset(pd.concat([antigens, *symbols])) - {""}
    return frozenset(antigens).difference(*symbols, _ALSO_GENES)


def _folded(name: str) -> str:
    return name.lower().translate(_WITHOUT_SEPARATORS)


def _kind(name: str, own: dict[str, str]) -> str:
    if key(name) in own:
        symbol = own[key(name)].lower()
        return symbol if symbol in _KINDS else "antibody"
    if is_bookkeeping(name):
        return "bookkeeping"
    if is_hashtag(name):
        return "hashtag"
    return "isotype" if is_isotype(name) else "antibody"


def _symbol(name: str, own: dict[str, str], species: str) -> str:
    if key(name) in own:
        return own[key(name)]
    table = curated(species)
    return next((table[key(part)] for part in [*spellings(name), *heads(name)] if key(part) in table), "")


def _as_genes(readings: pd.Series, names_of: str, species: str) -> pd.DataFrame:
    """Resolve antigens that are not in the curated table as genes; for each index, the first spelling that matches.

    Many CD names are aliases of human genes only: for mouse antibodies, the human symbol is written in mouse style.
    """
    table = resolve_genes(readings, species=names_of).table
    if names_of != species:
        table = resolve_genes(table["symbol"].str.capitalize(), species=species).table
    table["input"] = readings.index
    if species == "human":  # Sca-1 is Ly6a of the mouse, which humans lack; ATXN1 was called SCA1
        of_mouse = table["name"].map(key).map(curated("mouse")).groupby(table["input"]).transform("first")
        table = table[of_mouse.isna() | (of_mouse.str.upper() == table["symbol"])]
    table["worth"] = table["status"].map({"matched": 0, "ambiguous": 1, "lost": 2})
    best = table[table["worth"] < 2].sort_values("worth", kind="stable").drop_duplicates("input")
    return best.set_index("input").drop(columns="worth")


def _read_overrides(overrides: pd.DataFrame | str | Path | None) -> dict[str, str]:
    if overrides is None:
        return {}
    if not isinstance(overrides, pd.DataFrame):
        path = Path(overrides)
        try:
            overrides = pd.read_csv(path, sep="," if path.suffix == ".csv" else "\t", dtype=str, keep_default_na=False)
        except (OSError, UnicodeDecodeError, pd.errors.ParserError, pd.errors.EmptyDataError) as error:
            reason = " ".join(str(error).split())
            raise InputFileError(f"antibody overrides {path}: cannot be read as a table ({reason})") from error
    if not {"name", "symbol"} <= set(overrides.columns):
        raise InputFileError(
            f"antibody overrides need the columns name and symbol, but have {', '.join(map(str, overrides.columns))}"
        )
    table = overrides[["name", "symbol"]].fillna("").astype(str)
    return {key(name): symbol.strip() for name, symbol in table.itertuples(index=False)}
