"""Find doublets: ours from genes and proteins, from genes alone, and scrublet (scanpy), AUROC and average precision.

python benchmarks/doublets.py sln111.h5mu --labels-key cell_type                 # labels with the word doublet
python benchmarks/doublets.py pbmc10k.h5mu --labels-key cell_type --mixed        # sums of cells of two types

With ``--mixed``, each seed draws 1,800 cells and adds about 170 sums of two other cells that have different labels,
thinned to 60 % of their counts.
"""

import sys

if not __package__:
    sys.path[0] += "/.."  # run as a file: modules in this folder must not shadow the standard library

import argparse
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import scanpy as sc
from anndata import AnnData
from scipy import sparse
from sklearn.metrics import average_precision_score, roc_auc_score

from benchmarks.measure import over_seeds, print_table, write_json
from scfusionttt.analysis.doublets import doublets
from scfusionttt.data.assemble import as_citeseq
from scfusionttt.data.cells import CiteSeq
from scfusionttt.io.read import read

SINGLE, PAIRS, THINNED = 1800, 200, 0.6


def main() -> None:
    """Print mean and standard deviation over the seeds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("input", type=Path)
    parser.add_argument("--labels-key", required=True, metavar="KEY")
    parser.add_argument("--mixed", action="store_true", help="make the doublets")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    cite = as_citeseq(read(options.input))
    labels, rows = cite.obs[options.labels_key].astype(str).to_numpy(), []
    for seed in range(options.seeds):
        rna, protein, truth = mixed(cite, labels, seed) if options.mixed else named(cite, labels)
        rows += [{"seed": seed, "method": name, **score} for name, score in scores(rna, protein, truth, seed).items()]
    table = pd.DataFrame(rows)
    title = f"{options.input.stem}{', mixed' if options.mixed else ''}: {truth.sum()} of {len(truth)} cells"
    print_table(over_seeds(table, "method"), title)
    write_json(options.json, rows=table)


def named(cite: CiteSeq, labels: np.ndarray) -> tuple[sparse.csr_matrix, np.ndarray, np.ndarray]:
    """Return the counts of all cells, and which are called doublets in their label."""
    assert cite.protein is not None
    return cite.rna.X, cite.protein.X, np.array(["doublet" in label.lower() for label in labels])


def mixed(cite: CiteSeq, labels: np.ndarray, seed: int) -> tuple[sparse.csr_matrix, np.ndarray, np.ndarray]:
    """Return the counts of single cells and of sums of two, and which are sums."""
    assert cite.protein is not None
    rng = np.random.default_rng(seed)
    order = rng.permutation(cite.rna.n_obs)[: SINGLE + 2 * PAIRS]
    first, second, single = np.split(order, [PAIRS, 2 * PAIRS])
    differ = labels[first] != labels[second]
    first, second = first[differ], second[differ]
    sums = (cite.rna.X[first] + cite.rna.X[second]).tocsr()
    sums.data = rng.binomial(sums.data.astype(int), THINNED).astype(np.float32)
    sums.eliminate_zeros()
    proteins = rng.binomial((cite.protein.X[first] + cite.protein.X[second]).astype(int), THINNED)
    rna = sparse.vstack([cite.rna.X[single], sums], format="csr")
    return rna, np.vstack([cite.protein.X[single], proteins]), np.arange(rna.shape[0]) >= len(single)


def scores(rna: sparse.csr_matrix, protein: np.ndarray, truth: np.ndarray, seed: int) -> dict[str, dict[str, float]]:
    """Return AUROC, average precision, and the fractions of doublets and of single cells that are called doublets."""
    cells = AnnData(rna.copy())
    sc.pp.scrublet(cells, random_state=seed, threshold=0.25, verbose=False)
    found = {
        "genes and proteins": doublets(rna, protein, seed=seed),
        "genes": doublets(rna, None, seed=seed),
        "scrublet": (cells.obs["doublet_score"].to_numpy(), cells.obs["predicted_doublet"].to_numpy(bool)),
    }
    return {
        name: {
            "AUROC": float(roc_auc_score(truth, score)),
            "precision": float(average_precision_score(truth, score)),
            "called": float(called[truth].mean()),
            "called, single": float(called[~truth].mean()),
        }
        for name, (score, called) in found.items()
    }


if __name__ == "__main__":
    main()
