"""Cells of several batches: what Harmony makes of the representation, beside totalVI, which is told of the batches.

python benchmarks/batches.py --totalvi --json batches.json                   # simulated: three batches, eight types
python benchmarks/batches.py cells.h5mu --labels cell_type --batch donor

The model knows no batches; Harmony (Korsunsky et al. 2019, defaults) is given z and the batches. Each row tells how
well clusters find the types (ARI, NMI; no label was seen in training) and which share of a cell's 15 nearest neighbours
is of its own batch, divided by what chance would give: 1 where batches are mixed.
"""

import sys

if not __package__:
    sys.path[0] += "/.."  # run as a file: no module in this folder is to stand for one of the standard library

import argparse
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.measure import print_table, write_json
from scfusionttt.comparison.scvi_baselines import trained_totalvi
from scfusionttt.data.cells import CiteSeq, as_citeseq
from scfusionttt.data.transforms import highly_variable
from scfusionttt.evaluation import evaluate_representation, neighbours
from scfusionttt.io.read import read
from scfusionttt.model.fusionttt import FusionTTT
from scfusionttt.simulation.simulate import simulate

N_GENES = 4000  # most variable ones, as many as our model reads by default


def main() -> None:
    """Print the table of all seeds' mean and standard deviation."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("input", type=Path, nargs="?", help="without: simulated cells, others with each seed")
    parser.add_argument("--labels", default="cell_type", metavar="KEY")
    parser.add_argument("--batch", default="batch", metavar="KEY")
    parser.add_argument("--effect", type=float, default=0.3, help="of a simulated batch on every gene and protein")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--totalvi", action="store_true", help="also totalVI (scvi-tools), with its defaults")
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    rows = []
    for seed in range(options.seeds):
        cite = _cells(options, seed)
        for name, z in representations(cite, options.batch, seed, options.totalvi).items():
            rows.append({"seed": seed, "method": name, **scores(z, cite, options.labels, options.batch)})
            print(*rows[-1].values(), sep="  ", flush=True)
    table = pd.DataFrame(rows)
    summary = table.drop(columns="seed").groupby("method", sort=False).agg(["mean", "std"]).round(3)
    summary.columns = [" ".join(pair) for pair in summary.columns]
    print_table(summary, f"{options.input.stem if options.input else 'simulated'}: batches by {options.batch}")
    write_json(options.json, rows=table)


def _cells(options: argparse.Namespace, seed: int) -> CiteSeq:
    if options.input:
        return as_citeseq(read(options.input), cells="overlap")
    return as_citeseq(simulate(2000, 2000, 20, 8, n_batches=3, batch_effect=options.effect, seed=seed))


def representations(cite: CiteSeq, batch: str, seed: int, totalvi: bool) -> dict[str, np.ndarray]:
    """Return z, z as Harmony corrects it, and totalVI's latent, each [n, d]."""
    import harmonypy

    z = FusionTTT(seed=seed).pretrain(cite).embed(cite)
    batches = cite.obs[[batch]].astype(str)
    found = {
        "scfusionttt": z,
        "scfusionttt, Harmony": harmonypy.run_harmony(z, batches, batch, random_state=seed, verbose=False).Z_corr,
    }
    if totalvi:
        assert cite.protein is not None
        adata = cite.rna[:, highly_variable(cite.rna.X, n_top=N_GENES)].copy()
        adata.obs, adata.obsm["protein"] = batches, cite.protein.to_df()
        found["totalVI"] = trained_totalvi(adata, seed, batch_key=batch).get_latent_representation()
    return found


def scores(z: np.ndarray, cite: CiteSeq, labels: str, batch: str) -> dict[str, float]:
    """Return how well clusters find the types, and how far batches keep apart."""
    found = evaluate_representation(z, cite.obs[labels]).mean
    return {"ARI": found["ARI"], "NMI": found["NMI"], "own batch": own_batch(z, cite.obs[batch])}


def own_batch(z: np.ndarray, batches: pd.Series) -> float:
    """Return the share of neighbours that are of a cell's own batch, divided by that of all cells."""
    codes, _ = pd.factorize(batches)
    near = neighbours(z).obsp["distances"].tocoo()
    shares = np.bincount(codes) / len(codes)
    return float((codes[near.row] == codes[near.col]).mean() / (shares @ shares))


if __name__ == "__main__":
    main()
