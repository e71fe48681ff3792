"""Denoise one half of each cell's counts, and compare with the other half: mean Pearson over genes and over proteins.

python benchmarks/denoising.py pbmc10k.h5mu --cells 2000 --seeds 3

Counts are split binomially, so that the noise of the halves is independent. The model is pretrained on the first half;
its denoised values, and the first half itself, are compared with the second half: genes after log-normalisation (those
with counts in at least 20 cells), proteins after log1p.
"""

import sys

if not __package__:
    sys.path[0] += "/.."  # run as a file: modules in this folder must not shadow the standard library

import argparse
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.measure import over_seeds, print_table, write_json
from scfusionttt.data.assemble import as_citeseq
from scfusionttt.data.cells import CiteSeq
from scfusionttt.data.count_splitting import halves
from scfusionttt.data.transforms import library_sizes, log_normalize
from scfusionttt.evaluation import mean_correlation
from scfusionttt.io.read import read
from scfusionttt.model.fusionttt import FusionTTT

FEWEST_CELLS = 20


def main() -> None:
    """Print mean and standard deviation over the seeds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("input", type=Path)
    parser.add_argument("--cells", type=int, default=2000)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    cite, rows = as_citeseq(read(options.input)), []
    for seed in range(options.seeds):
        rng = np.random.default_rng(seed)
        chosen = np.sort(rng.permutation(cite.rna.n_obs)[: options.cells])
        found = scores(*_with_rna(*halves(cite[chosen], rng)), seed)
        rows += [{"seed": seed, "values": name, **score} for name, score in found.items()]
        print(*rows[-2:], sep="\n", flush=True)
    table = pd.DataFrame(rows)
    print_table(over_seeds(table, "values"), f"{options.input.stem}: correlation with the other half of the counts")
    write_json(options.json, rows=table)


def scores(half: CiteSeq, other: CiteSeq, seed: int) -> dict[str, dict[str, float]]:
    """Return the correlations of one half, as it is and denoised, with the other half."""
    denoised = FusionTTT(seed=seed, progress=False).pretrain(half).denoise(half)
    genes = half.rna.var_names.get_indexer(denoised.var_names)
    assert half.protein is not None and other.protein is not None
    common = np.asarray((other.rna.X[:, genes] > 0).sum(axis=0)).ravel() >= FEWEST_CELLS
    proteins = denoised.obsm["protein_denoised"]
    truth = log_normalize(other.rna.X)[:, genes][:, common].toarray()
    truth_of_proteins = np.log1p(other.protein.to_df()[proteins.columns])
    return {
        "first half": {
            "genes": mean_correlation(log_normalize(half.rna.X)[:, genes][:, common].toarray(), truth),
            "proteins": mean_correlation(np.log1p(half.protein.to_df()[proteins.columns]), truth_of_proteins),
        },
        "denoised": {
            "genes": mean_correlation(np.asarray(denoised.X)[:, common], truth),
            "proteins": mean_correlation(proteins, truth_of_proteins),
        },
    }


def _with_rna(first: CiteSeq, second: CiteSeq) -> tuple[CiteSeq, CiteSeq]:
    """Return the cells that have RNA in both halves."""
    kept = (library_sizes(first.rna.X) > 0) & (library_sizes(second.rna.X) > 0)
    return first[kept], second[kept]


if __name__ == "__main__":
    main()
