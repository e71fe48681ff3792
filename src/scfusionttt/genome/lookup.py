"""Look names up in one gene table."""

from functools import cached_property, lru_cache

import pandas as pd

from scfusionttt.genome.chromosomes import is_main
from scfusionttt.genome.names import MISSING
from scfusionttt.genome.tables import read_shipped

#: Genes with the same name on one chromosome within this distance share a position, base pairs.
_ONE_PLACE = 1_000_000


def spelling(names: pd.Series) -> pd.Series:
    """Normalise what tools change: case, and "_", "-" and "." (Seurat writes Y-RNA, R writes HLA.A)."""
    folded = [name.upper().replace("_", "-").replace(".", "-") for name in names]
    return pd.Series(folded, index=names.index, dtype=object)


class GeneLookup:
    """A gene table with an index for each kind of name, built on first use."""

    def __init__(self, assembly: str, genes: pd.DataFrame | None = None):
        self.assembly = assembly
        self._genes = genes
        self._keys: dict[str, pd.DataFrame] = {}

    @cached_property
    def genes(self) -> pd.DataFrame:
        """The table; a shipped one is read on first use."""
        return read_shipped(self.assembly) if self._genes is None else self._genes

    @cached_property
    def _preference(self) -> pd.Series:
        """Main chromosomes before contigs, and X before Y (the pseudoautosomal regions)."""
        chromosome = self.genes["chromosome"]
        return 2 * (~is_main(chromosome)).astype(int) + (chromosome == "Y").astype(int)

    def keys(self, level: str) -> pd.DataFrame:
        """Return the names of a level ("gene_id", "symbol", "previous", "alias"): key (folded spelling), text, row."""
        if level not in self._keys:
            text = self.genes[level]
            if level in {"previous", "alias"}:
                text = text[text != ""].str.split("|").explode()
                text = text[~text.str.lower().isin(MISSING)]
            text = text[text != ""]
            self._keys[level] = pd.DataFrame({"key": spelling(text), "text": text, "row": text.index})
        return self._keys[level]

    def find(self, names: pd.Series, level: str) -> pd.DataFrame:
        """Look names up in any spelling; identical spelling, main chromosomes and X have priority.

        Returns
        -------
        DataFrame indexed as `names`, with matching names only: row (position in `genes`, -1 if several genes match) and
        candidates (their symbols or ids, joined by "|", if several match).
        """
        wanted = pd.DataFrame({"input": names.index, "name": names.to_numpy(), "key": spelling(names).to_numpy()})
        keys = self.keys(level)
        pairs = wanted.merge(keys[keys["key"].isin(wanted["key"])], on="key")
        if pairs.empty:
            return pd.DataFrame({"row": pairs["row"], "candidates": pairs["key"]})
        pairs["rank"] = 4 * (pairs["name"] != pairs["text"]).astype(int) + self._preference.loc[pairs["row"]].to_numpy()
        pairs = pairs[pairs["rank"] == pairs.groupby("input")["rank"].transform("min")]
        several = pairs["input"].duplicated(keep=False)
        single = pairs[~several].set_index("input")[["row"]].assign(candidates="")
        return pd.concat([single, self._decide(pairs[several])]) if several.any() else single

    def _decide(self, pairs: pd.DataFrame) -> pd.DataFrame:
        """Choose among genes with the same name: those at one position count as one, others are ambiguous."""
        inputs, chosen, candidates = [], [], []
        for name, rows in pairs.groupby("input")["row"]:
            genes = self.genes.loc[rows.unique()].sort_values("gene_id")
            symbols = genes["symbol"].unique()
            near = genes["chromosome"].nunique() == 1 and genes["start"].max() - genes["start"].min() < _ONE_PLACE
            contigs = not is_main(genes["chromosome"]).any()
            one = len(symbols) == 1 and (near or contigs)
            inputs.append(name)
            chosen.append(genes.index[0] if one else -1)
            candidates.append("" if one else "|".join(sorted(symbols) if len(symbols) > 1 else genes["gene_id"]))
        return pd.DataFrame({"row": chosen, "candidates": candidates}, index=inputs)


@lru_cache
def shipped_lookup(assembly: str) -> GeneLookup:
    """Return the lookup of a shipped assembly, built once."""
    return GeneLookup(assembly)
