"""Cohorts: mixing of batches, cell types of each batch, types of one batch alone, and mapping of a batch left out.

python benchmarks/batches.py --seeds 3 --json batches.json                     # simulated: three batches, eight types
python benchmarks/batches.py cells.h5mu --labels-key cell_type --batch-key donor --seeds 3
python benchmarks/batches.py pbmc10k.h5mu --labels-key cell_type --two-runs 0.5 # real cells, a simulated second run
python benchmarks/batches.py --small 0.1 --seeds 5                             # simulated, a donor of few cells
python benchmarks/batches.py --staining 1 --seeds 5                            # simulated, a donor stained differently

Rows: our model without the batches, with them, and one model per batch; a model of all batches but the last, into whose
embedding the last is mapped; 30 components of RNA beside the proteins, plain and corrected by Harmony (Korsunsky et al.
2019, defaults); with ``--systems``, totalVI given the batches, and the last batch's labels by Symphony and by scANVI
surgery (scArches; it alone trains on labels of the other batches). Columns, each a mean over labelled cells unless
stated otherwise:

* own batch: share of the 15 nearest neighbours from a cell's own batch, relative to the share of that batch among the
  cells of its type (1: mixed); types of at least two batches.
* iLISI: median number of batches among 90 neighbours (1: own batch alone; the number of batches: mixed).
* ARI, NMI: of clusters of each batch's cells, mean over batches.
* joint ARI, NMI: of clusters of all cells, which also show whether a type of several batches is one cluster.
* kNN: accuracy of the last batch's labels by its 15 nearest cells of the other batches, for types that these have.
* purity: share of a cell's neighbours of its type, for types of one batch alone; the lowest of these types.
"""

import sys

if not __package__:
    sys.path[0] += "/.."  # run as a file: modules in this folder must not shadow the standard library

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from harmonypy import compute_lisi
from sklearn.neighbors import KNeighborsClassifier, NearestNeighbors

from benchmarks.measure import over_seeds, print_table, some_cells, write_json
from scfusionttt.comparison import linear_baselines, scvi_baselines, systems
from scfusionttt.comparison.cells import Cells
from scfusionttt.comparison.systems import Counts
from scfusionttt.data.assemble import as_citeseq
from scfusionttt.data.cells import CiteSeq
from scfusionttt.evaluation import evaluate_representation
from scfusionttt.io.read import read
from scfusionttt.labels import label_names
from scfusionttt.model.fusionttt import FusionTTT
from scfusionttt.simulation.simulate import simulate

NEIGHBORS = 15
SYSTEMS = ("totalvi", "symphony", "scanvi_surgery")
#: Fewest cells that a type has in a batch to count as one of its types.
FEWEST = 10


def main() -> None:
    """Print mean and standard deviation over the seeds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("input", type=Path, nargs="?", help="default: cells simulated with each seed")
    parser.add_argument("--labels-key", default="cell_type", metavar="KEY")
    parser.add_argument("--batch-key", default="batch", metavar="KEY")
    parser.add_argument("--effect", type=float, default=0.4, help="size of the simulated batch effect")
    parser.add_argument(
        "--two-runs",
        type=float,
        metavar="SPREAD",
        help="divide the cells into two runs at random; in the second, each gene and protein is measured with an "
        "efficiency of its own, log-normal with this standard deviation (natural log)",
    )
    parser.add_argument(
        "--staining", type=float, default=0.0, metavar="SPREAD",
        help="multiply the counts of each protein in the last batch by a factor, log-normal with this standard "
        "deviation (natural log)",
    )  # fmt: skip
    parser.add_argument("--cells", type=int, help="draw so many cells")
    parser.add_argument("--small", type=float, metavar="FRACTION", help="keep so many of the cells of the last batch")
    parser.add_argument(
        "--unknown-proteins", type=float, default=0.0, metavar="FRACTION",
        help="also map the last batch as if the model did not know so many of its proteins",
    )  # fmt: skip
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--preset", default="default", help="of our model")
    parser.add_argument("--systems", nargs="+", default=(), choices=SYSTEMS, help="also these, if installed")
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    rows = []
    for seed in range(options.seeds):
        cells = Cells("cohort", _cells(options, seed), options.labels_key, options.batch_key)
        if options.staining:
            cells = replace(cells, cite=_stained(cells, options.staining, seed))
        if options.small:
            cells = replace(cells, cite=_with_small_batch(cells, options.small, seed))
        variants = {"small": bool(options.small), "unknown": options.unknown_proteins}
        for name, found in scored(cells, seed, options.preset, options.systems, **variants):
            rows.append({"seed": seed, "method": name, **found})
            print(*(f"{value:.3f}" if isinstance(value, float) else value for value in rows[-1].values()), flush=True)
    table = pd.DataFrame(rows)
    title = f"{options.input.stem if options.input else 'simulated'}: batches by {options.batch_key}"
    print_table(over_seeds(table, "method"), title)
    write_json(options.json, rows=table)


def _cells(options: argparse.Namespace, seed: int) -> CiteSeq:
    if options.input:
        cite = some_cells(as_citeseq(read(options.input), cells="overlap"), options.cells, seed=seed)
        return cite if options.two_runs is None else two_runs(cite, options.two_runs, options.batch_key, seed)
    return as_citeseq(
        simulate(
            1500, 1500, 20, 8, n_batches=3, batch_effect=options.effect, composition_shift=0.7, batch_only="NK",
            rare_fraction=0.08, seed=seed,
        )
    )  # fmt: skip


def _with_small_batch(cells: Cells, fraction: float, seed: int) -> CiteSeq:
    """Return the cells with a fraction of those of the last batch, drawn at random."""
    last = cells.batches == np.unique(cells.batches)[-1]
    return cells.cite[~last | (np.random.default_rng(seed).random(len(last)) < fraction)]


def _stained(cells: Cells, spread: float, seed: int) -> CiteSeq:
    """Return the cells with other counts of proteins in the last batch, drawn anew."""
    assert cells.cite.protein is not None
    rng, protein = np.random.default_rng(seed), cells.cite.protein.copy()
    last = cells.batches == np.unique(cells.batches)[-1]
    factor = np.exp(rng.normal(-spread / 2, spread, protein.n_vars))
    counts = protein.X[last]
    protein.X[last] = np.where(np.isnan(counts), np.nan, rng.poisson(np.nan_to_num(counts) * factor))
    return replace(cells.cite, protein=protein)


def two_runs(cite: CiteSeq, spread: float, batch_key: str, seed: int) -> CiteSeq:
    """Return the cells as two runs, the second with half of the RNA counts and other efficiencies and background."""
    assert cite.protein is not None
    rng = np.random.default_rng(seed)
    second = rng.random(cite.rna.n_obs) < 0.5
    rna, protein = cite.rna.copy(), cite.protein.copy()
    efficiency = np.minimum(0.5 * np.exp(rng.normal(0, spread, rna.n_vars)), 1)
    counts = rna.X.tocoo()
    kept = np.where(second[counts.row], efficiency[counts.col], 1)
    counts.data = rng.binomial(counts.data.astype(np.int64), kept).astype(np.float32)
    rna.X = counts.tocsr()
    stained = protein.X * np.exp(rng.normal(-0.3, spread, protein.n_vars)) + rng.gamma(1, 3, protein.n_vars)
    protein.X = np.where(second[:, None], rng.poisson(stained), protein.X).astype(np.float32)
    obs = cite.obs.assign(**{batch_key: np.where(second, "second", "first")})
    return CiteSeq(rna, protein, obs)


def scored(
    cells: Cells, seed: int, preset: str, others: Sequence[str], *, small: bool = False, unknown: float = 0.0
) -> Iterator[tuple[str, dict[str, float]]]:
    """Yield each method and its scores.

    With `small`, also our model that draws small batches more often; with `unknown`, also the last batch without this
    fraction of its proteins.
    """
    for name, z in representations(cells, seed, preset, small=small, unknown=unknown).items():
        yield name, scores(z, cells)
    if "totalvi" in others:
        yield "totalVI", scores(scvi_baselines.totalvi(cells, seed), cells)
    labels = label_names(cells.cite.obs[cells.labels_key])
    asked = _last(labels, cells.batches)[1]
    for name in others:
        if name != "totalvi":
            yield f"{name}, last batch mapped", {"kNN": float((_named(name, cells, seed) == labels[asked]).mean())}


def _named(name: str, cells: Cells, seed: int) -> np.ndarray:
    """Return the labels that a system gives the last batch's cells, learned from those of the others [m]."""
    labels = label_names(cells.cite.obs[cells.labels_key])
    known, asked = _last(labels, cells.batches)
    genes = cells.cite.rna[:, cells.variable]
    first, new, batches = genes.X[known], genes.X[asked], cells.batches[known]
    if name == "scanvi_surgery":
        return scvi_baselines.scanvi_surgery(first, labels[known], new, seed, batches=batches)
    reference = Counts(first, genes.var_names, labels=labels[known], batches=batches)
    output = systems.SYMPHONY.run(reference, seed, query=Counts(new, genes.var_names))
    assert isinstance(output, pd.DataFrame)
    return output["label"].to_numpy(str)


def representations(
    cells: Cells, seed: int, preset: str, *, small: bool = False, unknown: float = 0.0
) -> "dict[str, np.ndarray | list]":
    """Return representations [n, d]; of one model per batch, a list with that of each batch. See `scored`."""
    cite, batches = cells.cite, cells.batches
    names = np.unique(batches)

    def trained(cite: CiteSeq, batch_key: str | None = None, **settings: bool) -> FusionTTT:
        model = FusionTTT(preset, seed=seed, progress=False, pretrain=settings)
        return model.pretrain(cite, batch_key=batch_key or [])

    found: dict[str, np.ndarray | list] = {
        "scfusionttt": trained(cite).embed(cite),
        "scfusionttt, batch_key": trained(cite, cells.batch_key).embed(cite),
        "scfusionttt, one per batch": [
            trained(cite[batches == name]).embed(cite[batches == name]) for name in names
        ],
    }  # fmt: skip
    if small:
        balanced = trained(cite, cells.batch_key, balance_batches=True)
        found["scfusionttt, batch_key, small batches drawn more often"] = balanced.embed(cite)
    known = batches != names[-1]
    reference = trained(cite[known], cells.batch_key if len(names) > 2 else None)

    def mapped(query: CiteSeq) -> np.ndarray:
        z = np.empty((len(known), reference.network.backbone.n_latent), dtype=np.float32)
        z[known], z[~known] = reference.embed(cite[known]), reference.map(query, batch_key=cells.batch_key).embedding
        return z

    found["scfusionttt, last batch mapped"] = mapped(cite[~known])
    if unknown:
        partial = _without_proteins(cite[~known], unknown, seed)
        found[f"scfusionttt, last batch mapped, {unknown:.0%} of its proteins unknown"] = mapped(partial)
    found["concatenation"] = linear_baselines.concat(cells, seed)
    found["concatenation, Harmony"] = linear_baselines.concat_harmony(cells, seed)
    return found


def _without_proteins(cite: CiteSeq, fraction: float, seed: int) -> CiteSeq:
    """Return cells without a fraction of their proteins, drawn at random."""
    assert cite.protein is not None
    n = cite.protein.n_vars
    kept = np.sort(np.random.default_rng(seed).permutation(n)[round(fraction * n) :])
    return replace(cite, protein=cite.protein[:, kept].copy())


def scores(z: "np.ndarray | list", cells: Cells) -> dict[str, float]:
    """Return how well batches mix and cell types are kept; of one model per batch, the cell types of each."""
    labels, batches = label_names(cells.cite.obs[cells.labels_key]), cells.batches
    names = np.unique(batches)
    parts = z if isinstance(z, list) else [z[batches == name] for name in names]
    own = [
        evaluate_representation(part, labels[batches == name]).mean for part, name in zip(parts, names, strict=True)
    ]  # fmt: skip
    result = {metric: float(np.mean([one[metric] for one in own])) for metric in ("ARI", "NMI")}
    if isinstance(z, list):
        return result
    joint = evaluate_representation(z, labels).mean
    return {**mixing(z, labels, batches), **result, **{f"joint {metric}": joint[metric] for metric in result}}


def mixing(z: np.ndarray, labels: np.ndarray, batches: np.ndarray) -> dict[str, float]:
    """Return own batch, iLISI, kNN and purity."""
    counts = pd.crosstab(labels, batches)
    is_known, n_batches = labels != "", (counts >= FEWEST).sum(axis=1)[labels].to_numpy()
    nearest = NearestNeighbors(n_neighbors=NEIGHBORS).fit(z).kneighbors(return_distance=False)
    same = (batches[nearest] == batches[:, None]).mean(axis=1)
    shares = counts.div(counts.sum(axis=1), axis=0)
    chance = np.array([shares.at[label, batch] for label, batch in zip(labels, batches, strict=True)])
    shared, alone = is_known & (n_batches > 1), is_known & (n_batches == 1)
    pure = (labels[nearest] == labels[:, None]).mean(axis=1)
    types = np.unique(labels[alone])
    return {
        "own batch": float(same[shared].mean() / chance[shared].mean()),
        "iLISI": float(np.median(compute_lisi(z, pd.DataFrame({"batch": batches}), ["batch"]))),
        "kNN": _accuracy(z, labels, batches),
        "purity": min((float(pure[labels == name].mean()) for name in types), default=np.nan),
    }


def _last(labels: np.ndarray, batches: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return which cells have a label in another batch than the last, and which of the last have a type of those."""
    last = batches == np.unique(batches)[-1]
    known = ~last & (labels != "")
    return known, last & np.isin(labels, np.unique(labels[known]))


def _accuracy(z: np.ndarray, labels: np.ndarray, batches: np.ndarray) -> float:
    known, asked = _last(labels, batches)
    predicted = KNeighborsClassifier(NEIGHBORS).fit(z[known], labels[known]).predict(z[asked])
    return float((predicted == labels[asked]).mean())


if __name__ == "__main__":
    main()
