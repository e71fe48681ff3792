"""Test whether surprise, the inner loss of the TTT layers, detects new cell types and gained chromosome arms.

1. A class is left out of pretraining and fine-tuning. AUROC of its cells against held-out cells of the other classes,
   for surprise and for the baselines: 1 - highest softmax, and distance from the classes (``--unknown``).
2. A chromosome arm is gained in cells that the model was not trained on: counts on the arm increase by half (binomial).
   AUROC of that arm among the arms of the same cell, for surprise and for the baselines: mean expression, and, if it is
   installed, infercnvpy with its defaults and the training cells of each class as reference.

Surprise and expression are measured in standard deviations from the training cells.

python benchmarks/surprise.py pbmc10k.h5mu --labels-key cell_type --json surprise.json
"""

import sys

if not __package__:
    sys.path[0] += "/.."  # run as a file: `operator` must not shadow the standard library's

import argparse
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pandas as pd
from anndata import AnnData
from sklearn.metrics import roc_auc_score

from benchmarks.measure import print_table, write_json
from scfusionttt.data.assemble import as_citeseq
from scfusionttt.data.cells import CiteSeq
from scfusionttt.data.features import match_features
from scfusionttt.data.split import stratified_split
from scfusionttt.explain import as_track, by_region, relative
from scfusionttt.genome.regions import arms
from scfusionttt.io.read import read
from scfusionttt.labels import usable_labels
from scfusionttt.model.fusionttt import FusionTTT

#: Arms with fewer genes in the model are skipped.
FEWEST_GENES = 30


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("input", help="CITE-seq with labels, human")
    parser.add_argument("--labels-key", required=True, help="obs column")
    parser.add_argument("--preset", default="default")
    parser.add_argument("--cells", type=int, default=3000, help="cells drawn from the input")
    parser.add_argument("--classes", nargs="*", help="classes to leave out in turn (default: all)")
    parser.add_argument("--gained", type=int, default=100, help="cells in which each arm is gained")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    cite = as_citeseq(read(given.input))
    codes, names = usable_labels(cite.obs, given.labels_key)
    drawn = np.random.default_rng(given.seed).permutation(np.flatnonzero(codes >= 0))[: given.cells]
    cite, codes = cite[np.sort(drawn)], codes[np.sort(drawn)]

    rows: dict[str, dict[str, float]] = {}
    gains = pd.DataFrame()
    for name in given.classes or names:
        out = np.flatnonzero(codes == names.index(name))
        known = np.flatnonzero(codes != names.index(name))
        first, second = stratified_split(codes[known], fraction=0.75, seed=given.seed)
        train, held_out = known[first], known[second]
        model = FusionTTT(given.preset, seed=given.seed, progress=False).pretrain(cite[train])
        if gains.empty:
            gains = gained_arms(model, cite[train], codes[train], cite[held_out[: given.gained]], given.seed)
        model.finetune(cite[train], labels_key=given.labels_key)
        rows[name] = unseen_class(model, cite, train, held_out, out)
        print(f"{name}: {rows[name]}", file=sys.stderr, flush=True)
    unseen = pd.DataFrame.from_dict(rows, orient="index").rename_axis("class left out")
    print_table(unseen, "AUROC of the cells of an unseen class")
    print_table(gains, f"AUROC of the gained arm among the arms, mean of {given.gained} cells; and of their mean")
    settings = {name: str(value) for name, value in vars(given).items()}
    write_json(given.json, settings=settings, unseen=unseen, gains=gains)


def unseen_class(
    model: FusionTTT, cite: CiteSeq, train: np.ndarray, held_out: np.ndarray, out: np.ndarray
) -> dict[str, float]:
    """Return the AUROC of each novelty score, `out` against `held_out`."""
    rows = np.concatenate([train, held_out, out])
    _, track = model.embed(cite[rows], surprise=True)
    values = np.asarray(relative(track, np.arange(len(rows)) < len(train)).X)[len(train) :]
    is_new = np.arange(len(held_out) + len(out)) >= len(held_out)
    predicted = model.predict(cite[rows[len(train) :]], unknown=0.01)
    return {
        "cells": len(out),
        "surprise, mean": roc_auc_score(is_new, values.mean(axis=1)),
        "surprise, mean square": roc_auc_score(is_new, np.square(values).mean(axis=1)),
        "1 - softmax": roc_auc_score(is_new, 1 - predicted["probability"]),
        "1 - p_value": roc_auc_score(is_new, 1 - predicted["p_value"]),
    }


def gained_arms(model: FusionTTT, train: CiteSeq, codes: np.ndarray, cells: CiteSeq, seed: int) -> pd.DataFrame:
    """Return the AUROC of each gained arm among the arms, for surprise and for the baselines."""
    genes = model.features.genes.dropna(subset=["chromosome", "start"])
    arm_of_gene = arms(genes)
    counts = arm_of_gene.value_counts()
    tested = [arm for arm in arm_of_gene.unique() if counts[arm] >= FEWEST_GENES]
    columns = match_features(cells, model.features).genes[arm_of_gene.index]
    rng = np.random.default_rng(seed)
    expression = expression_track(model, train)
    normal = np.stack([np.asarray(expression.X)[codes == code].mean(axis=0) for code in np.unique(codes)])
    reference = tracks(model, train, normal)
    rows: dict[str, dict[str, float]] = {}
    for arm in tested:
        gained = gain(cells, columns[(arm_of_gene == arm).to_numpy()], rng)
        rows[arm] = {"genes": int(counts[arm])}
        for kind, track in tracks(model, gained, normal).items():
            rows[arm] |= arm_aurocs(track, reference[kind], arm, tested, kind)
    table = pd.DataFrame.from_dict(rows, orient="index").rename_axis("gained arm")
    return pd.concat([table, table.mean().rename("mean").to_frame().T])


def tracks(model: FusionTTT, cells: CiteSeq, normal: np.ndarray) -> dict[str, AnnData]:
    """Return the surprise of the tokens, and the baselines of the genes; `normal` [k, g] is infercnvpy's reference."""
    expression = expression_track(model, cells)
    by_kind = {"surprise": model.embed(cells, surprise=True)[1], "expression": expression}
    if find_spec("infercnvpy"):
        by_kind["infercnvpy"] = copy_numbers(expression, normal)
    return by_kind


def expression_track(model: FusionTTT, cells: CiteSeq) -> AnnData:
    """Return the log-normalised expression of the genes."""
    expression = model.preprocessing.log_normalized(cells, match_features(cells, model.features)).toarray()
    return as_track(expression, model.features.genes, cells.rna.obs_names, patch=1)


def copy_numbers(expression: AnnData, normal: np.ndarray) -> AnnData:
    """Return the smoothed fold changes of infercnvpy per gene, 0 for genes without a value."""
    import infercnvpy

    track = expression.copy()
    _, _, by_gene = infercnvpy.tl.infercnv(
        track, reference=normal, n_jobs=1, inplace=False, calculate_gene_values=True, chunksize=200
    )
    track.X = np.nan_to_num(by_gene)
    return track


def gain(cells: CiteSeq, columns: np.ndarray, rng: np.random.Generator) -> CiteSeq:
    """Return the cells with counts of some genes increased by half, at random."""
    more = cells[np.arange(cells.rna.n_obs)]
    dense = more.rna.X.toarray()
    columns = columns[columns >= 0]
    dense[:, columns] += rng.binomial(dense[:, columns].astype(int), 0.5)
    more.rna.X = type(more.rna.X)(dense)
    return more


def arm_aurocs(track: AnnData, reference: AnnData, arm: str, tested: list[str], kind: str) -> dict[str, float]:
    """Return the AUROC of an arm among those tested: per cell, and for the mean of the cells."""
    mean, std = np.asarray(reference.X).mean(axis=0), np.asarray(reference.X).std(axis=0)
    scaled = track.copy()
    scaled.X = (np.asarray(track.X) - mean) / np.maximum(std, 1e-6)
    regions = by_region(scaled, "arm")[tested]
    is_arm = np.array(tested) == arm
    by_cell = [roc_auc_score(is_arm, row) for row in regions.to_numpy()]
    return {f"{kind}, per cell": float(np.mean(by_cell)), f"{kind}, all": roc_auc_score(is_arm, regions.mean())}


if __name__ == "__main__":
    main()
