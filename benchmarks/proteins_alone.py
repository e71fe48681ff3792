"""Cells with proteins alone: how close they lie to where their RNA would place them.

python benchmarks/proteins_alone.py cells.h5mu --labels-key cell_type --seeds 3
python benchmarks/proteins_alone.py cells.h5mu --labels-key cell_type --batch-key donor --held-out donor2

The RNA of some CITE-seq cells is hidden: of a random half or, with ``--held-out``, of a whole batch. The model is
pretrained on the others; cells without RNA take no part, except for the effect of their batch. Rows: the hidden cells
with both modalities in the same model, by RNA alone, by proteins alone; and a baseline without a network: 30 principal
components of the RNA predicted by ridge regression from the proteins, beside these. Columns:

* labels: share of the 15 nearest of the other cells, embedded with both modalities, that have the cell's label.
* itself: share of the hidden cells' embeddings with both modalities that are nearer to a cell's than its own (0: none).
* ARI: of as many clusters of the hidden cells as there are labels.
"""

import sys

if not __package__:
    sys.path[0] += "/.."  # run as a file: modules in this folder must not shadow the standard library

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
from mudata import MuData
from scipy.spatial.distance import cdist
from sklearn.linear_model import RidgeCV
from sklearn.metrics import adjusted_rand_score
from sklearn.neighbors import NearestNeighbors

from benchmarks.measure import over_seeds, print_table, write_json
from scfusionttt.comparison.cells import Cells
from scfusionttt.data.assemble import as_citeseq
from scfusionttt.data.cells import CiteSeq
from scfusionttt.evaluation import baselines
from scfusionttt.evaluation.clustering import cluster
from scfusionttt.io.quiet_warnings import quiet
from scfusionttt.io.read import read
from scfusionttt.labels import label_names
from scfusionttt.model.fusionttt import FusionTTT


def main() -> None:
    """Print mean and standard deviation over the seeds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("input", type=Path)
    parser.add_argument("--labels-key", default="cell_type", metavar="KEY")
    parser.add_argument("--batch-key", metavar="KEY")
    parser.add_argument("--held-out", metavar="BATCH", help="hide the RNA of this batch; default: of a random half")
    parser.add_argument("--cells", type=int, help="draw so many cells")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--preset", default="default")
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    whole = as_citeseq(read(options.input), cells="overlap")
    rows = []
    for seed in range(options.seeds):
        rng = np.random.default_rng(seed)
        cite = whole if options.cells is None else whole[np.sort(rng.permutation(whole.rna.n_obs)[: options.cells])]
        hidden = rng.permutation(cite.rna.n_obs) < cite.rna.n_obs // 2
        if options.held_out:
            hidden = (cite.obs[options.batch_key].astype(str) == options.held_out).to_numpy()
        labels = label_names(cite.obs[options.labels_key])
        for name, (z, both) in representations(cite, hidden, seed, options).items():
            rows.append({"seed": seed, "hidden cells": name, **scores(z, both, hidden, labels, seed)})
            print(*(f"{value:.3f}" if isinstance(value, float) else value for value in rows[-1].values()), flush=True)
    table = pd.DataFrame(rows)
    title = f"{options.input.stem}: RNA hidden of {options.held_out or 'a random half'}"
    print_table(over_seeds(table, "hidden cells"), title)
    write_json(options.json, rows=table)


def representations(
    cite: CiteSeq, hidden: np.ndarray, seed: int, options: argparse.Namespace
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return the cells [n, d] by each method, and as it sees them with both modalities."""
    partial = without_rna(cite, hidden)
    model = FusionTTT(options.preset, progress=False, seed=seed)
    model.pretrain(partial, batch_key=options.batch_key or [], cells="all")
    both = model.embed(cite)
    alone = both.copy()
    alone[hidden] = model.embed(CiteSeq(cite.rna, None, cite.obs)[hidden])
    cells = Cells("cells", cite, options.labels_key)
    components = baselines.pca(cells.rna, 30, fit_on=~hidden, seed=seed)
    protein = baselines.zscore(cells.protein, fit_on=~hidden)
    predicted = components.copy()
    predicted[hidden] = (
        RidgeCV(np.logspace(-2, 4, 7)).fit(protein[~hidden], components[~hidden]).predict(protein[hidden])
    )
    return {
        "RNA and proteins": (both, both),
        "RNA alone": (alone, both),
        "proteins alone": (model.embed(partial, cells="all"), both),
        "ridge regression": (np.hstack([predicted, protein]), np.hstack([components, protein])),
    }


def without_rna(cite: CiteSeq, hidden: np.ndarray) -> MuData:
    """Return the cells as MuData, the hidden ones without RNA."""
    assert cite.protein is not None
    with quiet():
        mdata = MuData({"prot": cite.protein.copy(), "rna": cite.rna[~hidden].copy()})  # in the order of the proteins
        mdata.obs = cite.obs.loc[mdata.obs_names]
    return mdata


def scores(
    z: np.ndarray, both: np.ndarray, hidden: np.ndarray, labels: np.ndarray, seed: int
) -> dict[str, float]:  # fmt: skip
    """Return the columns of the table."""
    nearest = NearestNeighbors(n_neighbors=15).fit(both[~hidden]).kneighbors(z[hidden], return_distance=False)
    distances = cdist(z[hidden], both[hidden])
    known = labels[hidden] != ""
    clusters = cluster(z[hidden], n_clusters=len(set(labels[hidden][known])), seed=seed).labels
    return {
        "labels": float((labels[~hidden][nearest] == labels[hidden][:, None])[known].mean()),
        "itself": float((distances < np.diag(distances)[:, None]).mean()),
        "ARI": float(adjusted_rand_score(labels[hidden][known], clusters[known])),
    }


if __name__ == "__main__":
    main()
