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
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import sparse

from benchmarks.measure import print_table, write_json
from scfusionttt.data.assemble import as_citeseq
from scfusionttt.data.cells import CiteSeq
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
        found = scores(*halves(cite[chosen], rng), seed)
        rows += [{"seed": seed, "values": name, **score} for name, score in found.items()]
        print(*rows[-2:], sep="\n", flush=True)
    table = pd.DataFrame(rows)
    summary = table.groupby("values", sort=False).agg(["mean", "std"]).drop(columns="seed").round(3)
    summary.columns = summary.columns.map(" ".join)
    print_table(summary, f"{options.input.stem}: correlation with the other half of the counts")
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


def halves(cite: CiteSeq, rng: np.random.Generator) -> tuple[CiteSeq, CiteSeq]:
    """Return cells with each count in one of two halves; cells without RNA in either are left out."""
    assert cite.protein is not None
    first = cite.rna.X.copy()
    first.data = rng.binomial(first.data.astype(int), 0.5).astype(np.float32)
    proteins = rng.binomial(np.nan_to_num(cite.protein.X).astype(int), 0.5).astype(np.float32)
    parts = []
    for rna, protein in ((first, proteins), (sparse.csr_matrix(cite.rna.X - first), cite.protein.X - proteins)):
        rna.eliminate_zeros()
        genes, antibodies = cite.rna.copy(), cite.protein.copy()
        genes.X, antibodies.X = rna, protein
        parts.append(replace(cite, rna=genes, protein=antibodies, findings=None))
    full = np.all([library_sizes(part.rna.X) > 0 for part in parts], axis=0)
    return parts[0][full], parts[1][full]


if __name__ == "__main__":
    main()
