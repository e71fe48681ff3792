"""Call proteins positive or negative: ours, dsb, two normal distributions and totalVI, on types with known proteins.

python benchmarks/background.py droplets.h5ad --droplet-key droplet --json droplets.json
python benchmarks/background.py pbmc10k.h5mu --labels-key cell_type --totalvi --json pbmc10k.json

Known positive and negative cells are those of types that have a protein, or lack it (`KNOWN`); the types are labels, or
clusters of the proteins. At equal sensitivity, that of our calls, methods are compared by the fraction of known
negative cells, and of empty droplets that no method was fitted to, which they call positive. Each seed draws the half
of the droplets to fit to, and seeds the methods. dsb is muon's; totalVI's score is its probability of foreground.
"""

import sys

if not __package__:
    sys.path[0] += "/.."  # run as a file: modules in this folder must not shadow the standard library

import argparse
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import scanpy as sc
from anndata import AnnData, concat
from sklearn.metrics import roc_auc_score
from sklearn.mixture import GaussianMixture

from benchmarks.measure import over_seeds, print_table, write_json
from scfusionttt.analysis.protein_mixture import ProteinMixture, fit_droplets
from scfusionttt.comparison.scvi_baselines import trained_totalvi
from scfusionttt.data.assemble import as_citeseq
from scfusionttt.data.cells import CiteSeq
from scfusionttt.data.proteins import protein_counts
from scfusionttt.data.transforms import clr, highly_variable
from scfusionttt.genome.antibody_names import antigen, is_isotype
from scfusionttt.io.read import read

#: Proteins that all, and that no, cells of a type have.
KNOWN = {
    "T": ("CD3 CD5 CD2 CD7", "CD19 CD20 CD21 IgD CD33 CD64 CD303 CD123 CD1c CD15"),
    "B": ("CD19 CD20 CD21 CD40 HLA-DR CD45RA", "CD3 CD14 CD33 CD64 CD56 CD7 CD161 CD28 CD8 CD8a CD4 CD15"),
    "monocytes": (
        "CD14 CD33 CD64 CD11b CD11c HLA-DR CD13 CD86 CD32", "CD3 CD19 CD20 CD5 CD21 IgD CD7 CD27 CD28 CD8 CD8a CD56",
    ),
    "NK": ("CD56 CD7 CD244 CD314 CD2 CD38", "CD3 CD19 CD20 CD14 CD33 CD64 CD5 IgD CD21 CD4 CD15"),
}  # fmt: skip
#: Types of labels.
TYPES = {"CD4+ T cells": "T", "CD8+ T cells": "T", "B cells": "B", "CD14+ monocytes": "monocytes", "NK cells": "NK"}
#: Standard deviations by which the proteins of its type are higher in a cluster than those of any other type.
CLEARLY = 0.5
OURS, THRESHOLD = "scfusionttt", 0.9
#: Most empty droplets to score: dsb fits two mixtures to each.
SCORED = 1000
Scores = dict[str, tuple[np.ndarray, np.ndarray | None]]


def main() -> None:
    """Print mean and standard deviation over the seeds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("input", type=Path)
    parser.add_argument("--droplet-key", metavar="KEY", help="obs column whose values are cell and empty")
    parser.add_argument("--labels-key", metavar="KEY")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--totalvi", action="store_true", help="also totalVI (scvi-tools), with its defaults")
    parser.add_argument("--cells", type=int, default=2000, help="number of cells for totalVI, drawn at random")
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    data = read(options.input)
    proteins = protein_counts(data)
    proteins.obs = data.obs.loc[proteins.obs_names]
    empty = None
    if options.droplet_key:
        droplet = proteins.obs[options.droplet_key].to_numpy(str)
        proteins, empty = proteins[droplet == "cell"].copy(), proteins[droplet == "empty"].copy()
    rows = []
    for seed in range(options.seeds):
        rng, cells, chosen = np.random.default_rng(seed), proteins, data
        if options.totalvi:
            kept = np.sort(rng.permutation(proteins.n_obs)[: options.cells])
            cells, chosen = proteins[kept].copy(), data[kept].copy()
        scores = calls(cells, *halves(empty, rng), seed)
        if options.totalvi:
            scores["totalVI"] = (totalvi(as_citeseq(chosen), seed), None)
        labels = options.labels_key
        types = clusters(cells, seed) if labels is None else cells.obs[labels].astype(str).map(TYPES).to_numpy(object)
        rows += [{"seed": seed, **row} for row in compare(scores, types, list(cells.var_names))]
        print(pd.DataFrame(rows).tail(len(scores)).round(4).to_string(index=False), flush=True)
    table = pd.DataFrame(rows)
    print_table(over_seeds(table, "method", digits=4), f"{options.input.stem}: calls at equal sensitivity")
    write_json(options.json, rows=table)


def halves(empty: AnnData | None, rng: np.random.Generator) -> tuple[AnnData | None, AnnData | None]:
    """Return the droplets to fit to, and at most `SCORED` others to score."""
    if empty is None:
        return None, None
    order = rng.permutation(empty.n_obs)
    return empty[order[::2]].copy(), empty[order[1::2][:SCORED]].copy()


def calls(cells: AnnData, fit: AnnData | None, held_out: AnnData | None, seed: int) -> Scores:
    """Return the score of each method for cells, and for the held-out droplets: higher is positive."""
    scores: Scores = {}
    controls = np.array([is_isotype(name) for name in cells.var_names])
    if fit is not None and held_out is not None:
        import muon

        droplets = fit_droplets(fit.X, controls, seed=seed)
        mixture = ProteinMixture.fit(cells.X, controls, droplets, seed=seed)
        scores[OURS] = (mixture.probability(cells.X), mixture.probability(held_out.X))
        for name, denoise in (("dsb, step 1 alone", False), ("dsb", True)):
            both = concat([cells, held_out])
            names = list(cells.var_names[controls]) if denoise else None
            muon.prot.pp.dsb(both, fit.copy(), isotype_controls=names, denoise_counts=denoise, random_state=seed)
            scores[name] = (both.X[: cells.n_obs], both.X[cells.n_obs :])
    alone = ProteinMixture.fit(cells.X, controls, seed=seed).probability(cells.X)
    scores[f"{OURS} without droplets"] = (alone, None)
    scores["two normals of the CLR"] = (np.stack([two_normals(v, seed) for v in clr(cells.X).T], axis=1), None)
    return scores


def two_normals(values: np.ndarray, seed: int) -> np.ndarray:
    """Return the probability [n] of the upper of two normal distributions, which grows with the value."""
    fitted = GaussianMixture(2, random_state=seed).fit(values[:, None])
    upper = fitted.predict_proba(values[:, None])[:, fitted.means_.argmax()]
    order = np.argsort(values)
    upper[order] = np.maximum.accumulate(np.where(values > fitted.means_.min(), upper, 0)[order])
    return upper


def totalvi(cells: CiteSeq, seed: int) -> np.ndarray:
    """Return totalVI's probability of foreground [n, p]."""
    assert cells.protein is not None
    rna = cells.rna[:, highly_variable(cells.rna.X, n_top=4000)].copy()
    rna.obsm["protein"] = cells.protein.to_df()
    model = trained_totalvi(rna, seed)
    return model.get_protein_foreground_probability(n_samples=10, return_mean=True, return_numpy=True)


def clusters(cells: AnnData, seed: int) -> np.ndarray:
    """Return the type of each cell: that whose proteins its cluster has most clearly, or None."""
    scaled = sc.pp.scale(AnnData(clr(cells.X), obs=cells.obs[[]], var=cells.var[[]]), max_value=10, copy=True)
    sc.pp.pca(scaled, n_comps=25, random_state=seed)
    sc.pp.neighbors(scaled, random_state=seed)
    sc.tl.leiden(scaled, flavor="igraph", n_iterations=2, random_state=seed)
    means = scaled.to_df().groupby(scaled.obs["leiden"].to_numpy()).mean()
    means.columns = [antigen(name) for name in means.columns]
    markers = {name: [protein for protein in known[0].split() if protein in means] for name, known in KNOWN.items()}
    score = pd.DataFrame({name: means[proteins].mean(axis=1) for name, proteins in markers.items()})
    second, first = np.sort(score.to_numpy(), axis=1)[:, -2:].T
    best = score.idxmax(axis=1).where(first - second > CLEARLY, None)
    return best[scaled.obs["leiden"].to_numpy()].to_numpy(object)


def compare(scores: Scores, types: np.ndarray, names: list[str]) -> list[dict[str, Any]]:
    """Return a row per method: what it calls positive at the sensitivity of the first, our calls."""
    column = {antigen(name): place for place, name in enumerate(names)}
    real = np.flatnonzero([not is_isotype(name) for name in names])

    def known(values: np.ndarray, which: int) -> np.ndarray:
        pairs = [
            (types == name, [column[p] for p in sets[which].split() if p in column]) for name, sets in KNOWN.items()
        ]
        return np.concatenate([values[np.ix_(cells, proteins)].ravel() for cells, proteins in pairs])

    sensitivity = float((known(next(iter(scores.values()))[0], 0) >= THRESHOLD).mean())
    rows: list[dict[str, Any]] = []
    for name, (cells, droplets) in scores.items():
        threshold = THRESHOLD if not rows else np.quantile(known(cells, 0), 1 - sensitivity)
        row: dict[str, Any] = {"method": name, "sensitivity": (known(cells, 0) >= threshold).mean()}
        row["known negative"] = (known(cells, 1) >= threshold).mean()
        row["AUROC"] = roc_auc_score(np.repeat([1, 0], [known(cells, 0).size, known(cells, 1).size]),
                                     np.concatenate([known(cells, 0), known(cells, 1)]))  # fmt: skip
        by_protein = np.full(1, np.nan) if droplets is None else (droplets[:, real] >= threshold).mean(axis=0)
        rows.append(row | {"droplets": by_protein.mean(), "droplets, worst protein": by_protein.max()})
    return rows


if __name__ == "__main__":
    main()
