"""The tasks of a benchmark: what a method sees under each protocol, and which cells it is scored on."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from scipy import sparse

from scfusionttt.comparison.cells import SPLIT, Cells, Modality
from scfusionttt.comparison.cost import Cost, measure
from scfusionttt.comparison.methods import Method, Result
from scfusionttt.comparison.reconstruction import reconstruction_scores
from scfusionttt.comparison.rows import Job, Row
from scfusionttt.data.split import random_split, stratified_split
from scfusionttt.errors import SettingError
from scfusionttt.evaluation import (
    Evaluation,
    evaluate_as_published,
    evaluate_graph,
    evaluate_predictions,
    evaluate_representation,
    integration_scores,
    neighbour_agreement,
    neighbour_correlation,
    neighbours,
    probe_f1,
    ridge_correlation,
)
from scfusionttt.evaluation.baselines import pca

#: The protocols of :data:`scfusionttt.evaluation.PROTOCOLS` that a benchmark runs by default, and all that it can run.
BENCHMARK_PROTOCOLS = ("unsupervised", "held-out")
PROTOCOLS = (*BENCHMARK_PROTOCOLS, "count-splitting", "paper", "ablation")
#: Fraction of the cells that the models of an ablation are trained on.
TRAINED = 0.75
#: Fraction of the labels under the protocol ``paper``. Stages 2 and 3 hold a tenth of these back, and learn from 27 %.
PAPER_SHARE = 0.3
#: Fraction of the labels that a probe of a representation learns from, and draws of them per row.
PROBE_SHARE, PROBES = 0.05, 5
#: Clustering seeds per row; row s takes 3s, 3s + 1, 3s + 2, so that the spread over rows includes the clustering.
CLUSTERINGS = 3


@dataclass(frozen=True)
class Task:
    """A protocol and, unless it is unsupervised, the fraction of the labels used for training (0..1)."""

    protocol: str
    share: float | None = None

    def suits(self, method: Method) -> bool:
        """Return whether a method can be scored under the protocol."""
        return any(getattr(method, name) is not None for name in _SCORING[self.protocol].needs)

    def score(self, method: Method, cells: Cells, seed: int) -> tuple[dict[str, Any], Cost]:
        """Run and score a method; return plain values for JSON, and the cost of the run without the scoring."""
        scoring = _SCORING[self.protocol]
        shared = method.prepare(cells, seed) if method.prepare and scoring.prepares else Cost()
        scores, own = scoring.run(method, cells, seed, self.share)
        return scores, shared + own


def tasks(protocols: list[str], train_fractions: list[float]) -> list[Task]:
    """Return the tasks of the named protocols; `train_fractions` are the fractions of the labels to train on.

    Raises
    ------
    SettingError
        A protocol does not exist, or a fraction is not between 0 and 1.
    """
    for name in protocols:
        if name not in PROTOCOLS:
            raise SettingError(f"there is no protocol {name!r}; choose among {', '.join(PROTOCOLS)}")
    if not train_fractions or not all(0 < fraction < 1 for fraction in train_fractions):
        raise SettingError("train_fractions must be between 0 and 1, such as 0.75,0.05")
    by_name = {
        "unsupervised": [Task("unsupervised")],
        "held-out": [Task("held-out", fraction) for fraction in train_fractions],
        "count-splitting": [Task("count-splitting")],
        "paper": [Task("paper", PAPER_SHARE)],
        "ablation": [Task("ablation", min(train_fractions))],
    }
    return [task for name in protocols for task in by_name[name]]


def jobs(
    datasets: Sequence[Cells], methods: Sequence[Method], tasks: Sequence[Task], seeds: Sequence[int]
) -> list[Job]:
    """Return the rows to compute, ordered so that every method runs once before any runs with its second seed.

    Raises
    ------
    SettingError
        No method can be scored in any of the tasks.
    """
    suited = [(method, task) for method in methods for task in tasks if task.suits(method)]
    if not suited:
        raise SettingError("none of the methods works with these protocols; see scfusionttt benchmark --help")
    return [_job(cells, *pair, seed) for cells in datasets for seed in seeds for pair in suited]


def _job(cells: Cells, method: Method, task: Task, seed: int) -> Job:
    inputs: Row = {
        "dataset": cells.name,
        "labels": cells.labels_key,
        "batches": cells.batch_key,
        **asdict(task),
        "method": method.name,
        "seed": seed,
        "settings": method.settings,
        "cells": cells.fingerprint,
    }
    score = partial(task.score, method, cells, seed)
    return Job(inputs, score, method.library, _why_unsuited(cells, method, task.protocol))


def _why_unsuited(cells: Cells, method: Method, protocol: str) -> str:
    """Return why a method cannot be scored under a protocol that it has the function for; empty if it can."""
    if protocol in method.unsuited:
        return method.unsuited[protocol]
    if method.needs_protein and not cells.has_protein:
        return "the data set has no proteins"
    if method.needs_batches and cells.batch_key is None:
        return "needs batches; name their column with batch_key"
    may_lack = method.may_lack | (frozenset() if method.needs_protein else {"proteins"})
    if lacking := sorted(cells.lacking - (may_lack & _SCORING[protocol].may_lack)):
        if lacking == ["proteins"] and np.isfinite(cells.protein_counts).any(axis=1).all():
            return "some cells lack some of the proteins; leave out these proteins"
        return f"some cells lack {' and '.join(lacking)}; leave them out with cells='overlap'"
    return ""


def _unsupervised(method: Method, cells: Cells, seed: int, share: float | None) -> tuple[dict[str, Any], Cost]:
    assert method.represent is not None
    result, cost = measure(partial(method.represent, cells, seed))
    return _plain(_clustered(result, cells, seed), **_quality(result, cells, seed)), cost


def _count_splitting(method: Method, cells: Cells, seed: int, share: float | None) -> tuple[dict[str, Any], Cost]:
    """Score by the other half of the counts, which punishes noise in a representation and what it misses."""
    assert method.represent is not None
    seen, other = cells.halves(seed)
    shared = method.prepare(seen, seed) if method.prepare else Cost()
    result, cost = measure(partial(method.represent, seen, seed))
    graph = neighbours(result).obsp["connectivities"] if isinstance(result, np.ndarray) else result
    values = {"gene": other.normalized(seen.variable).toarray()}
    if cells.has_protein:
        values["protein"] = other.protein
    scores = {f"split_{kind}_r": neighbour_correlation(graph, each) for kind, each in values.items()}
    if isinstance(result, np.ndarray):
        scores |= {f"split_{kind}_ridge_r": ridge_correlation(result, each) for kind, each in values.items()}
    return {"metrics": scores, "n_cells": len(cells.codes)}, shared + cost


def _held_out(method: Method, cells: Cells, seed: int, share: float | None) -> tuple[dict[str, Any], Cost]:
    assert method.classify is not None and share is not None
    train, held_out = stratified_split(cells.codes, fraction=share, seed=seed)
    probabilities, cost = measure(partial(method.classify, cells, train, seed))
    values = probabilities.to_numpy()[held_out]
    predicted = np.asarray(probabilities.columns)[values.argmax(axis=1)]
    return _plain(evaluate_predictions(predicted, cells.labels[held_out], values.max(axis=1).clip(0, 1))), cost


def _paper(method: Method, cells: Cells, seed: int, share: float | None) -> tuple[dict[str, Any], Cost]:
    """Score as published; a method that learns no representation from labels is scored on the one without them."""
    assert share is not None
    train, _ = stratified_split(cells.codes, fraction=share, seed=seed)
    run: Callable[[], Result]
    if method.represent_trained is not None:
        run = partial(method.represent_trained, cells, train, seed)
    else:
        assert method.represent is not None
        run = partial(method.represent, cells, seed)
    result, cost = measure(run)
    seeds = _clustering_seeds(seed)
    if isinstance(result, np.ndarray):
        return _plain(evaluate_as_published(result, cells.labels, seeds=seeds)), cost
    return _plain(evaluate_graph(result, cells.labels, seeds=seeds, protocol="paper", resolution=1.0)), cost


def _ablation(method: Method, cells: Cells, seed: int, share: float | None) -> tuple[dict[str, Any], Cost]:
    """Score reconstruction and classification of cells that a pretrained model has never seen, and clusters of all.

    The classifier learns from the fraction `share` of the labels of the cells that the model was trained on.
    """
    assert method.pretrain is not None and share is not None
    known, new = random_split(len(cells.codes), fraction=TRAINED, seed=seed)
    model, cost = measure(partial(method.pretrain, cells, known, seed))
    clustered = _clustered(model.embed(cells.cite), cells, seed)
    scores = reconstruction_scores(model, cells.cite[new], seed=seed)
    labelled = np.where(np.isin(np.arange(len(cells.codes)), known), cells.codes, -1)
    train, _ = stratified_split(labelled, fraction=share, seed=seed)
    model.finetune(cells.with_split(train), labels_key=cells.labels_key, split=SPLIT)
    predicted = evaluate_predictions(model.predict(cells.cite[new])["label"], cells.labels[new]).mean
    return _plain(clustered, **scores, few_labels_f1=predicted["macro_f1"]), cost


def _clustering_seeds(seed: int) -> range:
    return range(CLUSTERINGS * seed, CLUSTERINGS * (seed + 1))


def _clustered(result: Result, cells: Cells, seed: int) -> Evaluation:
    seeds = _clustering_seeds(seed)
    if not isinstance(result, np.ndarray):
        return evaluate_graph(result, cells.labels, seeds=seeds)
    scores = evaluate_representation(result, cells.labels, seeds=seeds)
    if cells.batch_key is None:
        return scores
    before = None if "RNA" in cells.lacking else pca(cells.rna, seed=seed)
    return scores.with_integration(integration_scores(result, cells.labels, cells.batches, before=before))


def _quality(result: Result, cells: Cells, seed: int) -> dict[str, float]:
    """Return the scores that do not depend on the number of classes.

    Values that only some cells have are not predicted, nor are any from a graph alone.
    """
    if not isinstance(result, np.ndarray):
        return _graph_quality(result, cells, seed)
    quality = _graph_quality(neighbours(result).obsp["connectivities"], cells, seed)
    quality["probe_f1"] = _few_labels(result, cells, seed)
    if "RNA" not in cells.lacking:
        quality["gene_r"] = ridge_correlation(result, cells.rna.toarray())
    if cells.has_protein and "proteins" not in cells.lacking:
        quality["protein_r"] = ridge_correlation(result, cells.protein)
    return quality


def _few_labels(representation: np.ndarray, cells: Cells, seed: int) -> float:
    """Return the macro F1 of a classifier that learns from a few labels, mean over draws of them."""
    splits = [
        stratified_split(cells.codes, fraction=PROBE_SHARE, seed=draw)
        for draw in range(PROBES * seed, PROBES * (seed + 1))
    ]
    return float(np.mean([probe_f1(representation, cells.labels, *split) for split in splits]))


def _graph_quality(graph: sparse.csr_matrix, cells: Cells, seed: int) -> dict[str, float]:
    found = evaluate_graph(graph, cells.labels, seeds=_clustering_seeds(seed), resolution=1.0)
    scores = {f"{name}_res1": found.mean[name] for name in ("ARI", "NMI")}
    return scores | {"clusters_res1": np.mean(found.n_clusters).item(), "kNN": neighbour_agreement(graph, cells.labels)}


def _plain(scores: Evaluation, **more: float) -> dict[str, Any]:
    values = scores.to_dict()
    counts = {name: values[name] for name in ("n_cells", "n_unlabelled", "n_classes", "n_clusters")}
    return {"metrics": values["metrics"] | more, **counts}


class _Scoring(NamedTuple):
    """How a protocol scores a method, the functions of the method of which it needs one, and what cells may lack."""

    run: Callable[[Method, Cells, int, float | None], tuple[dict[str, Any], Cost]]
    needs: tuple[str, ...]
    prepares: bool = True  # whether the method may prepare with all cells
    may_lack: frozenset[Modality] = frozenset({"RNA", "proteins"})


_SCORING = {
    "unsupervised": _Scoring(_unsupervised, ("represent",)),
    "held-out": _Scoring(_held_out, ("classify",)),
    "count-splitting": _Scoring(_count_splitting, ("represent",), prepares=False, may_lack=frozenset()),
    "paper": _Scoring(_paper, ("represent_trained", "represent")),
    "ablation": _Scoring(_ablation, ("pretrain",), prepares=False, may_lack=frozenset({"proteins"})),
}
