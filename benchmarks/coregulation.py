"""How much neighbouring genes of the genome vary together beyond cell types, in data and in simulations.

python benchmarks/coregulation.py pbmc10k.h5mu malt_subset.h5mu --labels-key cell_type wnn_cluster

Within each type, a gene's counts are divided by the cell's library size and the gene's mean. The covariance of two such
rates is that of the genes' activities: the noise of counting is independent, so sequencing depth does not matter. The
excess is the mean covariance of adjacent genes minus that in random orders; noise is the latter's standard deviation.
If stretches of genes share a log-normal factor, as in ``benchmarks/order.py``, an excess e belongs to one with a
standard deviation of sqrt(log(1 + e)): the strength. Other columns: the share of the ten strongest pairs, and which.
"""

import sys

if not __package__:
    sys.path[0] += "/.."  # run as a file: modules in this folder must not shadow the standard library

import argparse
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import sparse

from benchmarks.measure import labelled_inputs, print_table, write_json
from scfusionttt.comparison.cells import Cells
from scfusionttt.data.assemble import as_citeseq
from scfusionttt.genome import order_features, resolve_genes
from scfusionttt.simulation import simulate

STRENGTHS = (0.0, 0.2, 0.4, 0.8, 1.6)
#: Random orders that the genome's is compared with.
N_RANDOM = 200
#: Fewest cells of a type, and lowest mean count of a gene in it: rarer ones only add noise.
FEWEST_CELLS, LOWEST_MEAN = 50, 0.2
#: Weight of a pair of genes: the geometric mean of their mean counts, up to this one.
FULL_WEIGHT = 3.0


def main() -> None:
    """Print the co-regulation of simulations of known strength, and of the data."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("inputs", type=Path, nargs="*")
    parser.add_argument("--labels-key", nargs="+", default=["cell_type"], metavar="KEY", help="one, or one per input")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    given = labelled_inputs(parser, options)
    found = [simulated(strength, options.seed) for strength in STRENGTHS] + given
    rows = [{"cells": cells.name, **coregulation(cells, options.seed)} for cells in found]
    table = pd.DataFrame(rows).set_index("cells").round(4)
    print_table(table, "Covariance of adjacent genes within types, above that in random orders")
    write_json(options.json, rows=table.reset_index())


def simulated(strength: float, seed: int) -> Cells:
    """Return simulated cells whose neighbouring genes share a factor of this standard deviation."""
    mdata = simulate(1500, 600, 6, 3, depth=5.0, coregulation=strength, seed=seed)
    return Cells(f"simulated, strength {strength:g}", as_citeseq(mdata), "cell_type")


def coregulation(cells: Cells, seed: int) -> dict[str, object]:
    """Return excess, noise and strength, means over the types, weighted by their cells, and the strongest pairs."""
    rna = cells.cite.rna
    genes = resolve_genes(rna.var_names, gene_ids=rna.var.get("gene_ids")).table
    order = order_features(genes)
    genes = genes.iloc[order[genes["start"].notna().to_numpy()[order]]]
    counts = sparse.csc_matrix(rna.X)[:, genes.index].astype(np.float64)
    library = np.asarray(rna.X.sum(axis=1)).ravel()
    rng = np.random.default_rng(seed)
    types = [
        _of_type(counts[rows], library[rows], genes, rng)
        for name in cells.classes
        if (rows := cells.labels == name).sum() >= FEWEST_CELLS
    ]
    weight = np.array([one.n_cells for one in types]) / sum(one.n_cells for one in types)
    excess = float(weight @ [one.pairs.sum() - one.random.mean() for one in types])
    pairs = pd.concat([one.pairs * w for one, w in zip(types, weight, strict=True)])
    pairs = pairs.groupby(level=0).sum().sort_values(ascending=False)
    return {
        "types": len(types),
        "genes per type": round(float(np.mean([one.n_genes for one in types]))),
        "excess": excess,
        "noise": float(np.sqrt(weight**2 @ [one.random.var() for one in types])),
        "strength": float(np.sqrt(np.log1p(max(excess, 0)))),
        "of ten pairs": float(pairs.iloc[:10].sum() / pairs.sum()),
        "strongest": ", ".join(pairs.index[:5]),
    }


class _Type(NamedTuple):
    """Cells of a type: what each pair of adjacent genes adds to the mean covariance, and that of random orders."""

    n_cells: int
    n_genes: int
    pairs: pd.Series
    random: np.ndarray


def _of_type(counts: sparse.csc_matrix, library: np.ndarray, genes: pd.DataFrame, rng: np.random.Generator) -> _Type:
    """Compare the counts [n, g] of one type with random orders of its genes."""
    mean = np.asarray(counts.mean(axis=0)).ravel()
    kept = mean >= LOWEST_MEAN
    mean, genes = mean[kept], genes[kept]
    rates = counts[:, kept].toarray() / (library / library.mean())[:, None] / mean
    rates -= rates.mean(axis=0)
    chromosome, symbol = genes["chromosome"].to_numpy(), genes["symbol"].to_numpy()
    adjacent = np.flatnonzero(chromosome[:-1] == chromosome[1:])
    weight = np.sqrt(np.minimum(mean, FULL_WEIGHT))

    def parts(order: np.ndarray) -> np.ndarray:
        first, second = order[adjacent], order[adjacent + 1]
        covariance = np.einsum("np,np->p", rates[:, first], rates[:, second]) / (len(rates) - 1)
        return covariance * (w := weight[first] * weight[second]) / w.sum()

    names = [f"{symbol[place]}/{symbol[place + 1]}" for place in adjacent]
    random = [parts(rng.permutation(len(mean))).sum() for _ in range(N_RANDOM)]
    return _Type(len(rates), len(mean), pd.Series(parts(np.arange(len(mean))), index=names), np.array(random))


if __name__ == "__main__":
    main()
