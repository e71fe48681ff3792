"""Detect cells of a left-out class: AUROC of the distance and of the softmax.

python benchmarks/unknown.py pbmc.h5mu --labels-key cell_type --json unknown.json

For each class in turn, the model is fine-tuned on part of the cells of all other classes. The left-out class is then
separated from held-out cells of the other classes by the p-value of the distance from every class (as in
``predict --unknown``), and by one minus the largest probability; with proteins, and with RNA alone. One pretrained
model, which has seen no labels, serves all classes; with ``--strict``, pretraining does not see the left-out class
either.
"""

import sys

if not __package__:
    sys.path[0] += "/.."  # run as a file: modules in this folder must not shadow the standard library

import argparse
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.metrics import roc_auc_score

from benchmarks.measure import print_table, write_json
from scfusionttt.config import preset
from scfusionttt.data.assemble import as_citeseq
from scfusionttt.data.cells import CiteSeq
from scfusionttt.data.split import stratified_split
from scfusionttt.io.read import read
from scfusionttt.labels import usable_labels
from scfusionttt.model.fusionttt import FusionTTT

KNOWN, SPLIT = "known_class", "known_split"


def main() -> None:
    """Leave each class out in turn and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("input", type=Path)
    parser.add_argument("--labels-key", required=True, metavar="KEY")
    parser.add_argument("--share", type=float, default=0.75, help="fraction of the other cells to train on")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--model", type=Path, help="a pretrained model to start from")
    parser.add_argument("--strict", action="store_true", help="pretraining does not see the left-out class either")
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    cite = as_citeseq(read(options.input))
    codes, classes = usable_labels(cite.obs, options.labels_key)
    shared = None if options.strict else pretrained(cite, options.seed, options.model)
    rows = {}
    for left_out, name in enumerate(classes):
        new = codes == left_out
        model = deepcopy(shared) if shared else pretrained(cite[~new], options.seed)
        rows[name] = score(model, *without(cite, codes, left_out, options.share, options.seed), new)
        print(name, *(f"{score} {value:.3f}" for score, value in rows[name].items()), sep="  ", flush=True)
    rows["mean"] = {score: float(np.mean([row[score] for row in rows.values()])) for score in rows[name]}
    table = pd.DataFrame.from_dict(rows, orient="index")
    print_table(table.round(3), f"{options.input.stem} ({options.labels_key}): AUROC of the left-out class")
    write_json(options.json, classes=table.rename_axis("class").reset_index())


def pretrained(cells: CiteSeq, seed: int, folder: Path | None = None) -> FusionTTT:
    """Return a pretrained model, loaded from a folder or new."""
    return FusionTTT.load(folder) if folder else FusionTTT(seed=seed).pretrain(cells)


def without(cite: CiteSeq, codes: np.ndarray, left_out: int, share: float, seed: int) -> tuple[CiteSeq, np.ndarray]:
    """Return the cells with one class unlabelled, and the positions of the held-out cells of the others."""
    known = np.where(codes == left_out, -1, codes)
    train, held_out = stratified_split(known, fraction=share, seed=seed)
    split = np.where(np.isin(np.arange(len(codes)), train), "train", "test")
    names = np.where(known < 0, "unknown", known.astype(str))
    return replace(cite, obs=cite.obs.assign(**{KNOWN: names, SPLIT: split})), held_out


def score(model: FusionTTT, cells: CiteSeq, held_out: np.ndarray, new: np.ndarray) -> dict[str, float]:
    """Return the AUROC of distance and softmax for new cells, with proteins and with RNA alone."""
    model.config = replace(model.config, finetune=preset("default").finetune)
    model.finetune(cells, labels_key=KNOWN, split=SPLIT)
    scored = np.concatenate([held_out, np.flatnonzero(new)])
    truth, scores = new[scored], {}
    for view, seen in (("", cells), (", RNA alone", replace(cells, protein=None))):
        table = model.predict(seen[scored], unknown=0.01)
        scores[f"distance{view}"] = float(roc_auc_score(truth, 1 - table["p_value"]))
        scores[f"softmax{view}"] = float(roc_auc_score(truth, 1 - table["probability"]))
    return scores


if __name__ == "__main__":
    main()
