"""Choice of the genes of a simulation: neighbourhoods of the real genome."""

import numpy as np
import pandas as pd

from scfusionttt.genome.tables import load_genes

_ASSEMBLY = {"human": "GRCh38", "mouse": "GRCm39"}
#: Number of adjacent genes in a neighbourhood.
_NEIGHBORHOOD = 20
_CHROMOSOME = r"^(?:[1-9]|1\d|2[0-2]|X)$"
#: Names of clones, non-coding genes, receptor segments and pseudogenes (the gene tables have no biotype).
_NOT_CODING = (
    r"(?i)^(?:ENS|LINC|MIR|SNOR|SCARNA|RN[\dUAVY]|U\d|LOC|GM\d|MT-|TR[ABGD][VJDC]|IG[HKL][VJDGAEM]|OR\d|VMN)"
    r"|[.]|-(?:AS|DT|IT|OT|PS)|RIK$|OS\d?$|\dP\d*$"
)


def choose_genes(species: str, n_genes: int, needed: set[str], rng: np.random.Generator) -> pd.DataFrame:
    """Return `n_genes` genes in genome order, including the `needed` ones and their neighbours.

    Returns
    -------
    DataFrame
        symbol, gene_id, chromosome, start, end, and ``opens``: True if a gene is not adjacent to the one before.
    """
    genes = load_genes(_ASSEMBLY[species])
    needed_g = genes["symbol"].isin(needed)
    coding = ~genes["symbol"].str.contains(_NOT_CODING) & (genes["end"] - genes["start"] > 1000)
    genes = genes[genes["chromosome"].str.match(_CHROMOSOME) & (coding | needed_g)].drop_duplicates("symbol")
    order = genes["chromosome"].replace("X", "23").astype(int)
    genes = genes.assign(order=order).sort_values(["order", "start", "symbol"], ignore_index=True)

    stretch = np.arange(len(genes)) // _NEIGHBORHOOD
    priority = rng.permutation(stretch.max() + 1)[stretch] + _NEIGHBORHOOD
    anchors = np.flatnonzero(genes["symbol"].isin(needed))
    for distance in range(_NEIGHBORHOOD // 2, -1, -1):  # the nearest last, so that they rank first
        for near in (anchors - distance, anchors + distance):
            priority[near.clip(0, len(genes) - 1)] = distance
    chosen = np.sort(np.argsort(priority, kind="stable")[:n_genes])

    picked = genes.loc[chosen, ["symbol", "gene_id", "chromosome", "start", "end"]].reset_index(drop=True)
    picked["opens"] = np.r_[True, (np.diff(chosen) > 1) | (np.diff(genes["order"].to_numpy()[chosen]) != 0)]
    return picked
