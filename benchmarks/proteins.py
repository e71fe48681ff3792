"""Predict proteins from RNA on held-out cells: our model, ridge regression and totalVI, mean Pearson over proteins.

python benchmarks/proteins.py pbmc.h5mu --seeds 5 --json proteins.json

Each seed holds out a quarter of the cells. Our model and totalVI are trained on RNA and proteins of the other cells,
without labels, and then get only the RNA of the held-out cells. Ridge regression maps 50 principal components of RNA,
or our embedding of RNA alone, to the proteins. Values are centred log-ratios with the constants of the training cells,
also those of the counts that totalVI predicts.
"""

import sys

if not __package__:
    sys.path[0] += "/.."  # run as a file: modules in this folder must not shadow the standard library

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.linear_model import Ridge

from benchmarks.measure import print_table, write_json
from scfusionttt.comparison.scvi_baselines import expected_proteins
from scfusionttt.data.assemble import as_citeseq
from scfusionttt.data.cells import CiteSeq
from scfusionttt.data.moments import moments
from scfusionttt.data.split import random_split
from scfusionttt.data.transforms import clr, highly_variable, library_sizes, log_normalize
from scfusionttt.evaluation import mean_correlation
from scfusionttt.evaluation.baselines import features
from scfusionttt.io.read import read
from scfusionttt.model.fusionttt import FusionTTT

N_GENES = 4000  # the most variable genes, as many as our model uses by default


def main() -> None:
    """Print mean and standard deviation over the seeds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("input", type=Path)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--totalvi", action="store_true", help="also totalVI (scvi-tools), with its defaults")
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    cite = as_citeseq(read(options.input))
    rows = []
    for seed in range(options.seeds):
        correlations = scores(cite, seed, options.totalvi)
        rows += [{"seed": seed, "method": name, "pearson": r} for name, r in correlations.items()]
        print(*(f"{name} {r:.4f}" for name, r in correlations.items()), sep="  ", flush=True)
    table = pd.DataFrame(rows)
    summary = table.groupby("method", sort=False)["pearson"].agg(["mean", "std", "count"]).round(4)
    print_table(summary, f"{options.input.stem}: proteins from RNA alone, mean Pearson over proteins, held-out cells")
    write_json(options.json, rows=table)


def scores(cite: CiteSeq, seed: int, totalvi: bool) -> dict[str, float]:
    """Return the mean Pearson correlation of every method on the held-out cells of one seed."""
    train, held_out = random_split(cite.rna.n_obs, fraction=0.75, seed=seed)
    model = FusionTTT(seed=seed).pretrain(cite[train])
    imputed = model.impute(replace(cite[held_out], protein=None))
    assert cite.protein is not None
    counts = cite.protein.to_df()[imputed.columns].to_numpy(np.float64)
    constants = moments(np.log1p(counts[train])).mean
    learned, truth = (clr(counts[rows], log_geometric_mean=constants) for rows in (train, held_out))
    fused_train, fused_held_out = (model.embed(replace(cite[rows], protein=None)) for rows in (train, held_out))
    predictions = {
        "scfusionttt": imputed.to_numpy(),
        "ridge on 50 components": _ridge(*_components(cite, train, held_out, seed), learned),
        "ridge on the embedding": _ridge(fused_train, fused_held_out, learned),
    }
    if totalvi:
        expected = _totalvi(cite, train, held_out, seed)[imputed.columns].to_numpy()
        predictions["totalVI"] = clr(expected, log_geometric_mean=constants)
    return {name: mean_correlation(values, truth) for name, values in predictions.items()}


def _components(cite: CiteSeq, train: np.ndarray, held_out: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    variable = highly_variable(cite.rna.X[train], n_top=N_GENES)
    values = log_normalize(cite.rna.X, library_size=library_sizes(cite.rna.X))[:, variable]
    components = features(values, None, fit_on=train, seed=seed)
    return components[train], components[held_out]


def _ridge(train: np.ndarray, held_out: np.ndarray, values: np.ndarray) -> np.ndarray:
    return Ridge(1.0).fit(train, values).predict(held_out)


def _totalvi(cite: CiteSeq, train: np.ndarray, held_out: np.ndarray, seed: int) -> pd.DataFrame:
    """Return the protein counts that totalVI expects of the held-out cells."""
    assert cite.protein is not None
    genes = cite.rna.X[:, highly_variable(cite.rna.X[train], n_top=N_GENES)]
    return expected_proteins(genes[train], cite.protein.to_df().iloc[train], genes[held_out], seed)[len(train) :]


if __name__ == "__main__":
    main()
