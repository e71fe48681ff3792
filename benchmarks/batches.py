"""Batch effects: mixing of batches and recovery of cell types before and after Harmony, compared with totalVI.

python benchmarks/batches.py --totalvi --json batches.json                   # simulated: three batches, eight types
python benchmarks/batches.py cells.h5mu --labels-key cell_type --batch-key donor

The model does not use batches; Harmony (Korsunsky et al. 2019, defaults) corrects its embedding; totalVI is trained
with the batches. Each row has the agreement of clusters with cell types (ARI, NMI; training used no labels), and the
fraction of a cell's 15 nearest neighbours from its own batch, divided by that expected by chance: 1 if batches mix
fully.
"""

import sys

if not __package__:
    sys.path[0] += "/.."  # run as a file: modules in this folder must not shadow the standard library

import argparse
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.measure import print_table, write_json
from scfusionttt.comparison.scvi_baselines import trained_totalvi
from scfusionttt.data.assemble import as_citeseq
from scfusionttt.data.cells import CiteSeq
from scfusionttt.data.transforms import highly_variable
from scfusionttt.evaluation import evaluate_representation, neighbours
from scfusionttt.io.read import read
from scfusionttt.model.fusionttt import FusionTTT
from scfusionttt.simulation.simulate import simulate

N_GENES = 4000  # the most variable genes, as many as our model uses by default


def main() -> None:
    """Print mean and standard deviation over the seeds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("input", type=Path, nargs="?", help="default: cells simulated with each seed")
    parser.add_argument("--labels-key", default="cell_type", metavar="KEY")
    parser.add_argument("--batch-key", default="batch", metavar="KEY")
    parser.add_argument("--effect", type=float, default=0.3, help="size of the simulated batch effect")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--totalvi", action="store_true", help="also totalVI (scvi-tools), with its defaults")
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    rows = []
    for seed in range(options.seeds):
        cite = _cells(options, seed)
        for name, z in representations(cite, options.batch_key, seed, options.totalvi).items():
            rows.append({"seed": seed, "method": name, **scores(z, cite, options.labels_key, options.batch_key)})
            print(*rows[-1].values(), sep="  ", flush=True)
    table = pd.DataFrame(rows)
    summary = table.drop(columns="seed").groupby("method", sort=False).agg(["mean", "std"]).round(3)
    summary.columns = [" ".join(pair) for pair in summary.columns]
    print_table(summary, f"{options.input.stem if options.input else 'simulated'}: batches by {options.batch_key}")
    write_json(options.json, rows=table)


def _cells(options: argparse.Namespace, seed: int) -> CiteSeq:
    if options.input:
        return as_citeseq(read(options.input), cells="overlap")
    return as_citeseq(simulate(2000, 2000, 20, 8, n_batches=3, batch_effect=options.effect, seed=seed))


def representations(cite: CiteSeq, batch: str, seed: int, totalvi: bool) -> dict[str, np.ndarray]:
    """Return our embedding, the same corrected by Harmony, and totalVI's latent, each [n, d]."""
    import harmonypy

    z = FusionTTT(seed=seed).pretrain(cite).embed(cite)
    batches = cite.obs[[batch]].astype(str)
    embeddings = {
        "scfusionttt": z,
        "scfusionttt, Harmony": harmonypy.run_harmony(z, batches, batch, random_state=seed, verbose=False).Z_corr,
    }
    if totalvi:
        assert cite.protein is not None
        adata = cite.rna[:, highly_variable(cite.rna.X, n_top=N_GENES)].copy()
        adata.obs, adata.obsm["protein"] = batches, cite.protein.to_df()
        embeddings["totalVI"] = trained_totalvi(adata, seed, batch_key=batch).get_latent_representation()
    return embeddings


def scores(z: np.ndarray, cite: CiteSeq, labels: str, batch: str) -> dict[str, float]:
    """Return how well clusters agree with cell types, and how separate batches are."""
    mean = evaluate_representation(z, cite.obs[labels]).mean
    return {"ARI": mean["ARI"], "NMI": mean["NMI"], "same batch": same_batch(z, cite.obs[batch])}


def same_batch(z: np.ndarray, batches: pd.Series) -> float:
    """Return the fraction of neighbours from a cell's own batch, divided by that expected by chance."""
    codes, _ = pd.factorize(batches)
    near = neighbours(z).obsp["distances"].tocoo()
    shares = np.bincount(codes) / len(codes)
    return float((codes[near.row] == codes[near.col]).mean() / (shares @ shares))


if __name__ == "__main__":
    main()
