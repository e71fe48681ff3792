"""Describe names of genes and antibodies, with their positions."""

from collections.abc import Iterable

import pandas as pd

from scfusionttt.errors import FeatureError
from scfusionttt.genome.antibodies import resolve_antibodies
from scfusionttt.genome.names import as_text
from scfusionttt.genome.resolve import resolve_genes
from scfusionttt.genome.species import SpeciesMixtureError, infer_species

_COLUMNS = ["name", "kind", "symbol", "gene_id", "chromosome", "start", "end", "strand", "how"]


def describe(names: Iterable[object], species: str | None = None) -> pd.DataFrame:
    """Resolve each name as a gene or else as an antibody.

    Parameters
    ----------
    names
        Names of genes or antibodies, [f].
    species
        "human" or "mouse"; by default inferred from the gene names, or human if that fails.

    Returns
    -------
    DataFrame [f]: name, kind ("gene", "protein", "isotype", "hashtag", "bookkeeping" or "lost"), symbol, gene_id,
    chromosome, start and end (1-based, base pairs), strand, how (the kind of name; for an ambiguous one its
    candidates).

    Raises
    ------
    FeatureError
        The names are a mixture of human and mouse genes, or the species is not supported.
    """
    text = as_text(names)
    if species is None:
        try:
            species = infer_species(text)
        except SpeciesMixtureError:
            raise
        except FeatureError:
            species = "human"
    genes = resolve_genes(text, species=species).table.assign(kind="gene")
    proteins = resolve_antibodies(text, species=species).table
    proteins["kind"] = proteins["kind"].replace("antibody", "protein")
    resolved = (proteins["status"] == "matched") | proteins["kind"].isin(["isotype", "hashtag", "bookkeeping"])
    table = genes.where(genes["status"] == "matched", proteins)
    lost = (genes["status"] != "matched") & ~resolved
    table["kind"] = table["kind"].where(~lost, "lost")
    unclear = genes["candidates"].where(genes["status"] == "ambiguous", proteins["candidates"])
    table["how"] = table["how"].where(~(lost & unclear.notna()), "one of " + unclear.str.replace("|", ", "))
    return table[_COLUMNS]
