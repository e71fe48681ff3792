"""The three protocols: what a method is shown, and on which cells it is scored. Their results never share a table."""

from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from scfusionttt.comparison.cells import Cells
from scfusionttt.comparison.cost import Cost, measured
from scfusionttt.comparison.methods import Method, Result
from scfusionttt.data.split import stratified_split
from scfusionttt.errors import SettingError
from scfusionttt.evaluation import (
    Evaluation,
    evaluate_graph,
    evaluate_predictions,
    evaluate_representation,
    neighbour_agreement,
    neighbours,
    predicts,
)

#: The protocols of :data:`scfusionttt.evaluation.PROTOCOLS` that a benchmark can run.
PROTOCOLS = ("unsupervised", "held-out", "paper")
#: Shares of the labels that are learned from; the paper's protocol takes the first.
SHARES = (0.75, 0.05)
#: Clustering seeds per row; row s takes 3s, 3s + 1, 3s + 2, so that its spread holds that of the clustering too.
CLUSTERINGS = 3


@dataclass(frozen=True)
class Task:
    """A protocol, with the share of the labels that is learned from where any are."""

    protocol: str
    share: float | None = None

    def suits(self, method: Method) -> bool:
        """Say whether a method can do it."""
        able = {"unsupervised": method.represent, "held-out": method.classify, "paper": method.represent_trained}
        return able[self.protocol] is not None

    def score(self, method: Method, cells: Cells, seed: int) -> tuple[dict[str, Any], Cost]:
        """Run a method; returns its scores as plain values, and what it cost without the scoring."""
        shared = method.prepare(cells, seed) if method.prepare else Cost()
        run = {"unsupervised": _unsupervised, "held-out": _held_out, "paper": _paper}[self.protocol]
        scores, own = run(method, cells, seed, self.share)
        return scores, shared + own


def tasks(protocols: list[str], shares: list[float]) -> list[Task]:
    """Return the tasks of some protocols; raises SettingError for one that does not exist."""
    for name in protocols:
        if name not in PROTOCOLS:
            raise SettingError(f"there is no protocol {name!r}; choose among {', '.join(PROTOCOLS)}")
    if not shares or not all(0 < share < 1 for share in shares):
        raise SettingError("shares of the labels must lie between 0 and 1, such as 0.75,0.05")
    by_name = {
        "unsupervised": [Task("unsupervised")],
        "held-out": [Task("held-out", share) for share in shares],
        "paper": [Task("paper", shares[0])],
    }
    return [task for name in protocols for task in by_name[name]]


def _unsupervised(method: Method, cells: Cells, seed: int, share: float | None) -> tuple[dict[str, Any], Cost]:
    assert method.represent is not None
    found, cost = measured(partial(method.represent, cells, seed))
    return _plain(_clustered(found, cells, seed), **_quality(found, cells)), cost


def _held_out(method: Method, cells: Cells, seed: int, share: float | None) -> tuple[dict[str, Any], Cost]:
    assert method.classify is not None and share is not None
    train, held_out = stratified_split(cells.codes, fraction=share, seed=seed)
    told, cost = measured(partial(method.classify, cells, train, seed))
    values = told.to_numpy()[held_out]
    predicted = np.asarray(told.columns)[values.argmax(axis=1)]
    return _plain(evaluate_predictions(predicted, cells.labels[held_out], values.max(axis=1).clip(0, 1))), cost


def _paper(method: Method, cells: Cells, seed: int, share: float | None) -> tuple[dict[str, Any], Cost]:
    assert method.represent_trained is not None and share is not None
    train, _ = stratified_split(cells.codes, fraction=share, seed=seed)
    found, cost = measured(partial(method.represent_trained, cells, train, seed))
    seeds = _clustering_seeds(seed)
    return _plain(evaluate_representation(found, cells.labels, space="umap", seeds=seeds, protocol="paper")), cost


def _clustering_seeds(seed: int) -> range:
    return range(CLUSTERINGS * seed, CLUSTERINGS * (seed + 1))


def _clustered(found: Result, cells: Cells, seed: int) -> Evaluation:
    seeds = _clustering_seeds(seed)
    if isinstance(found, np.ndarray):
        return evaluate_representation(found, cells.labels, seeds=seeds)
    return evaluate_graph(found, cells.labels, seeds=seeds)


def _quality(found: Result, cells: Cells) -> dict[str, float]:
    """Score without clusters; a graph alone predicts no values."""
    if not isinstance(found, np.ndarray):
        return {"kNN": neighbour_agreement(found, cells.labels)}
    graph = neighbours(found).obsp["connectivities"]
    quality = {"kNN": neighbour_agreement(graph, cells.labels), "gene_r": predicts(found, cells.rna.toarray())}
    return quality | ({"protein_r": predicts(found, cells.protein)} if cells.has_protein else {})


def _plain(scores: Evaluation, **more: float) -> dict[str, Any]:
    told = scores.to_dict()
    kept = {name: told[name] for name in ("n_cells", "n_unlabelled", "n_classes", "n_clusters")}
    return {"metrics": told["metrics"] | more, **kept}
