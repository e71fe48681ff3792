"""Resolve gene names to genes and their positions; no name is dropped."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from scfusionttt.errors import FeatureError, name_some
from scfusionttt.genome.lookup import GeneLookup, shipped_lookup
from scfusionttt.genome.names import (
    as_text,
    count_ids,
    ensembl_ids,
    of_another_species,
    other_species,
    strip_species,
    without_suffix,
)
from scfusionttt.genome.readers import standard_form
from scfusionttt.genome.species import infer_species
from scfusionttt.genome.tables import RELEASES, load_genes

_PLACE = ["symbol", "gene_id", "chromosome", "start", "end", "strand"]


@dataclass(frozen=True)
class Resolution:
    """Result of resolving names.

    Attributes
    ----------
    table
        One row per input name, in input order: name, symbol, gene_id, chromosome, start, end (Int64, 1-based),
        strand, status ("matched", "ambiguous" or "lost"), how (the kind of name that matched), candidates (of an
        ambiguous name, joined by "|") and assembly (of the coordinates). Missing if not known.
        For antibodies also kind ("antibody", "isotype", "hashtag" or "bookkeeping").
    species
        "human", "mouse", or "other" for a custom table of another species.
    """

    table: pd.DataFrame
    species: str

    @property
    def counts(self) -> dict[str, int]:
        """Number of names per status."""
        status = self.table["status"]
        return {kind: int((status == kind).sum()) for kind in ("matched", "ambiguous", "lost")}

    def names(self, status: str) -> list[str]:
        """Return the names with a status, in input order."""
        return self.table.loc[self.table["status"] == status, "name"].tolist()

    def summary(self) -> str:
        """Return one line with the number of matched names and some of those that did not match."""
        table = self.table
        line = ""
        for kind in ("isotype", "hashtag", "bookkeeping"):
            aside = table.loc[table["kind"] == kind, "name"].tolist() if "kind" in table else []
            if aside:
                line += f"; {len(aside)} {kind}{'s' if len(aside) > 1 else ''} left out: {name_some(aside)}"
                table = table[table["kind"] != kind]
        for status in ("ambiguous", "lost"):
            missed = table.loc[table["status"] == status, "name"].tolist()
            if missed:
                line += f"; {len(missed)} {status}: {name_some(missed)}"
        share = 100 * self.counts["matched"] / max(len(table), 1)
        return f"{self.counts['matched']} of {len(table)} {self.species} names matched ({share:.2f} %){line}"


def resolve_genes(
    names: Iterable[object],
    *,
    gene_ids: Iterable[object] | None = None,
    species: str | None = None,
    table: pd.DataFrame | str | Path | None = None,
) -> Resolution:
    """Find the gene of each name.

    Ensembl ids are looked up first (in `gene_ids`, then in the names, without version), then symbols, previous symbols
    and aliases, ignoring case and species prefixes. Each kind of name is looked up in all shipped releases of the
    species, newest first. A symbol of an older release whose gene id still exists gets the symbol and position of the
    newest release; a retired gene keeps its last position, whose `assembly` may differ (GRCh37). Remaining names are
    tried without the suffix of a made-unique name. Genes with the same symbol on one chromosome within 1 Mb count as
    one. A name with the prefix or the Ensembl id of the other species is lost. If most ids are from a third species and
    `species` is given, only symbols are used.

    Parameters
    ----------
    names
        Gene names, [g].
    gene_ids
        Ensembl ids of the same genes, [g]; missing or empty if not known.
    species
        "human" or "mouse"; inferred from the names by default.
    table
        Table to use instead: an assembly of `load_genes`, the path of a table or GTF, or a DataFrame as returned by
        `load_genes`.

    Raises
    ------
    FeatureError
        The species cannot be inferred or is not supported, or `gene_ids` and `names` differ in length.
    InputFileError
        `table` is not a gene table.
    """
    text = as_text(names)
    ids = None if gene_ids is None else as_text(gene_ids)
    if ids is not None and len(ids) != len(text):
        raise FeatureError(f"{len(ids)} gene ids for {len(text)} gene names; pass one id per name")
    if table is not None:
        lookups: Sequence[GeneLookup] = [_own_lookup(table)]
        species = species or _species_of(lookups[0].genes)
    else:
        species = supported(species or infer_species(text, ids))
        ids = None if ids is not None and other_species(ids) else ids  # symbols only, if the user chose the species
        lookups = [shipped_lookup(assembly) for assembly in RELEASES[species]]
    return Resolution(_to_table(text, _search(text, ids, lookups, species), lookups), species)


def supported(species: str) -> str:
    """Return the name of a species as in `RELEASES`, whatever its case; FeatureError if it has no gene table."""
    if species.lower() not in RELEASES:
        raise FeatureError(f"species {species!r} has no gene table; use human or mouse, or pass a table or GTF")
    return species.lower()


def _search(names: pd.Series, ids: pd.Series | None, lookups: Sequence[GeneLookup], species: str) -> pd.DataFrame:
    """Try each kind of name in turn on unresolved names; [g] rows: lookup, row, candidates, how."""
    bare = strip_species(names)
    own_ids = ensembl_ids(bare).fillna("")
    given = own_ids if ids is None else ensembl_ids(ids).fillna("").where(lambda found: found != "", own_ids)
    foreign = of_another_species(names, given, species)
    bare, own_ids, given = (text.mask(foreign, "") for text in (bare, own_ids, given))
    attempts = [
        ("gene_id", given, "id"),
        ("gene_id", own_ids, "id"),
        ("symbol", bare, "symbol"),
        ("previous", bare, "previous"),
        ("alias", bare, "alias"),
        ("symbol", without_suffix(bare), "made unique"),
    ]
    found = pd.DataFrame({"lookup": -1, "row": -1, "candidates": "", "how": ""}, index=names.index)
    pending = pd.Series(True, index=names.index)
    for level, wanted, how in attempts:
        for position, lookup in enumerate(lookups):
            left = wanted[pending & (wanted != "")]
            if left.empty:
                break
            hits = lookup.find(left, level)
            # A name of several genes in a newer release may be unique in an older one.
            hits = hits[(hits["row"] >= 0) | (found["how"].loc[hits.index] == "")]
            for column in ("row", "candidates"):
                found.loc[hits.index, column] = hits[column]
            found.loc[hits.index, "lookup"] = position
            found.loc[hits.index, "how"] = how
            pending[hits.index[hits["row"] >= 0]] = False
        pending &= found["how"] == ""
    return found


def _to_table(names: pd.Series, found: pd.DataFrame, lookups: Sequence[GeneLookup]) -> pd.DataFrame:
    """Return the resolved genes; genes of an older release are updated to the newest if they still exist."""
    table = pd.DataFrame({"name": names}).reindex(columns=["name", *_PLACE, "status", "how", "candidates", "assembly"])
    table = table.astype({column: object for column in table.columns if column not in {"start", "end"}})
    table = table.astype({"start": "Int64", "end": "Int64"})
    table["status"] = "lost"
    ambiguous = found["candidates"] != ""
    table.loc[ambiguous, "status"] = "ambiguous"
    table.loc[ambiguous, "candidates"] = found["candidates"][ambiguous]
    for position, lookup in enumerate(lookups):
        hits = found[(found["lookup"] == position) & (found["row"] >= 0)]
        if len(hits):
            genes = lookup.genes.loc[hits["row"].astype(int), _PLACE].set_index(hits.index)
            table.loc[hits.index, _PLACE] = genes
            table.loc[hits.index, ["status", "assembly"]] = "matched", lookup.assembly
    table["how"] = found["how"].replace("", None)
    return _renew(table, lookups)


def _renew(table: pd.DataFrame, lookups: Sequence[GeneLookup]) -> pd.DataFrame:
    newest = lookups[0]
    older = table[(table["status"] == "matched") & (table["assembly"] != newest.assembly)]
    if older.empty:
        return table
    hits = newest.find(older["gene_id"].astype(str), "gene_id")
    genes = newest.genes.loc[hits["row"].astype(int), _PLACE].set_index(hits.index)
    # Many genes have no symbol in the newest release: keep the last one.
    named = genes["symbol"] != genes["gene_id"]
    genes["symbol"] = genes["symbol"].where(named, older.loc[hits.index, "symbol"])
    table.loc[hits.index, _PLACE] = genes
    table.loc[hits.index, "assembly"] = newest.assembly
    renamed = hits.index[named & (table.loc[hits.index, "how"] == "symbol")]
    table.loc[renamed, "how"] = "previous"
    return table


def _own_lookup(table: pd.DataFrame | str | Path) -> GeneLookup:
    if isinstance(table, pd.DataFrame):
        return GeneLookup("own table", standard_form(table, "given"))
    return GeneLookup(str(table), load_genes(table))


def _species_of(genes: pd.DataFrame) -> str:
    counts = count_ids(genes["gene_id"])
    species = max(counts, key=counts.__getitem__)
    return species if counts[species] > len(genes) / 2 else "other"
