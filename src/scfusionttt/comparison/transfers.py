"""Cell types of a query by RNA alone, named with a CITE-seq reference: without labels of the query, and with a few."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache, partial
from itertools import product

import numpy as np
import pandas as pd
from scipy import sparse

from scfusionttt.comparison import scvi_baselines, systems
from scfusionttt.comparison.cells import SPLIT, without_single
from scfusionttt.comparison.cost import Cost, measure
from scfusionttt.comparison.fingerprints import short_hash
from scfusionttt.comparison.queries import (
    LIBRARIES,
    N_COMPONENTS,
    N_NEIGHBORS,
    Query,
    mapped_labels,
    query_job,
    require_methods,
)
from scfusionttt.comparison.rows import Job
from scfusionttt.comparison.systems import Counts, System
from scfusionttt.data.split import stratified_split
from scfusionttt.errors import name_some
from scfusionttt.evaluation import evaluate_predictions
from scfusionttt.evaluation.baselines import logistic_regression, pca
from scfusionttt.evaluation.vocabulary import Protocol
from scfusionttt.model.fusionttt import FusionTTT

log = logging.getLogger("scfusionttt")


def jobs(
    queries: Sequence[Query],
    methods: Sequence[str],
    seeds: Sequence[int],
    *,
    labels_key: str,
    mapping: dict[str, str],
    shares: Sequence[float],
) -> list[Job]:
    """Return the jobs of a benchmark of transfer: zero-shot, and with `shares` of the query's labels."""
    require_methods(methods, ZERO_SHOT, "transfer")
    result = []
    for query in queries:
        query = _learnable(_by_rna(query), labels_key)
        truth = mapped_labels(query, labels_key, mapping)
        hashes = [_hash(query.train_labels(labels_key)), _hash(truth)]
        for seed, name in product(seeds, methods):
            ours = name.startswith("fusionttt")
            prepare = partial(_cost_of_training, query, labels_key, seed) if ours else Cost
            for share in (None, *(shares if name in FEW_LABELS else ())):
                result.append(
                    query_job(
                        query, name, seed, partial(_score, name, query, truth, labels_key, share, seed),
                        protocol="zero-shot" if share is None else "held-out", labels=labels_key, share=share,
                        label_hashes=hashes, prepare=prepare,
                    )
                )  # fmt: skip
    return result


def _hash(labels: np.ndarray) -> str:
    return short_hash("\n".join(labels).encode("utf-8", "surrogatepass"))


def _by_rna(query: Query) -> Query:
    """Return the query without proteins, which most methods could not read."""
    return query if query.cells.protein is None else replace(query, cells=replace(query.cells, protein=None))


def _learnable(query: Query, key: str) -> Query:
    """Return the query with the training cells that are alone in their class unlabelled."""
    names = query.train_labels(key)
    learnable = without_single(names)
    if (learnable == names).all():
        return query
    single = sorted(set(names) - set(learnable))
    log.info("%s: classes with only one cell are left out: %s", query.name, name_some(single))
    return replace(query, train=replace(query.train, obs=query.train.obs.assign(**{key: learnable})))


def _score(name: str, query: Query, truth: np.ndarray, key: str, share: float | None, seed: int) -> dict[str, float]:
    """Return the scores of a method on the labelled cells of the query, or on those left by a share to learn from."""
    protocol: Protocol
    if share is None:
        protocol, scored, predicted = "zero-shot", np.flatnonzero(truth != ""), ZERO_SHOT[name](query, key, seed)
    else:
        truth = without_single(truth)
        names, codes = np.unique(truth, return_inverse=True)
        codes = codes - int(names[0] == "")  # unlabelled cells, which sort first, become -1
        train, scored = stratified_split(codes, fraction=share, seed=seed)
        protocol, predicted = "held-out", FEW_LABELS[name](query, truth, train, key, seed)
    return dict(evaluate_predictions(predicted[scored], truth[scored], protocol=protocol).to_dict()["metrics"])


@cache
def _finetuned(query: Query, key: str, seed: int) -> tuple[FusionTTT, Cost]:
    """Return our model, trained on the reference, and what that cost."""
    return measure(lambda: query.trained(seed).finetune(query.train, labels_key=key))


def _cost_of_training(query: Query, key: str, seed: int) -> Cost:
    return _finetuned(query, key, seed)[1]


def _ours(step: str, query: Query, key: str, seed: int) -> np.ndarray:
    model, _ = _finetuned(query, key, seed)
    if step == "annotate":
        return model.annotate(query.cells, unknown=None).cells["label"].to_numpy(str)
    model = model.transfer(query.cells) if step == "transfer" else model
    return model.predict(query.cells)["label"].to_numpy(str)


def _logistic(own: bool, query: Query, key: str, seed: int) -> np.ndarray:
    return _classified(*query.components(seed, own=own), query, key)


def _harmony(query: Query, key: str, seed: int) -> np.ndarray:
    from harmonypy import run_harmony
    from sklearn.neighbors import KNeighborsClassifier

    train, new = query.components(seed)
    both = np.vstack([train, new])
    batch = pd.DataFrame({"batch": np.repeat(["train", "query"], [len(train), len(new)])})
    mixed = run_harmony(both, batch, ["batch"], random_state=seed, verbose=False).Z_corr
    names = query.train_labels(key)
    known = np.flatnonzero(names != "")
    return KNeighborsClassifier(N_NEIGHBORS).fit(mixed[known], names[known].astype(str)).predict(mixed[len(train) :])


def _system(system: System, query: Query, key: str, seed: int) -> np.ndarray:
    train, new, genes = query.gene_counts
    labels = query.train_labels(key)
    output = system.run(Counts(train, genes, labels=labels), seed, query=Counts(new, genes))
    assert not sparse.issparse(output)
    return output["label"].to_numpy(str)


def _scanvi_surgery(query: Query, key: str, seed: int) -> np.ndarray:
    train, new, _ = query.gene_counts
    return scvi_baselines.scanvi_surgery(train, query.train_labels(key), new, seed)


def _classified(train: np.ndarray, new: np.ndarray, query: Query, key: str) -> np.ndarray:
    names = query.train_labels(key)
    known = names != ""
    return logistic_regression(train[known], names[known], new)[0]


def _ours_few(query: Query, truth: np.ndarray, train: np.ndarray, key: str, seed: int) -> np.ndarray:
    split = np.where(truth == "", "", "test").astype(object)
    split[train] = "train"
    obs = query.cells.obs.copy()
    obs[key], obs[SPLIT] = truth, split
    cells = replace(query.cells, obs=obs)
    student = _finetuned(query, key, seed)[0].transfer(cells, labels_key=key, split=SPLIT)
    return student.predict(cells)["label"].to_numpy(str)


def _logistic_few(query: Query, truth: np.ndarray, train: np.ndarray, key: str, seed: int) -> np.ndarray:
    components = pca(query.genes[1], N_COMPONENTS, seed=seed)
    return logistic_regression(components[train], truth[train], components)[0]


#: Predict the labels of a query, given its key and a seed, without any of them.
ZERO_SHOT: dict[str, Callable[[Query, str, int], np.ndarray]] = {
    "fusionttt_annotate": partial(_ours, "annotate"),
    "fusionttt_predict": partial(_ours, "predict"),
    "fusionttt_transfer": partial(_ours, "transfer"),
    "logistic_reference_scale": partial(_logistic, False),
    "logistic_own_scale": partial(_logistic, True),
    "harmony_knn": _harmony,
    "celltypist": partial(_system, systems.CELLTYPIST),
    "symphony": partial(_system, systems.SYMPHONY),
    "scanvi_surgery": _scanvi_surgery,
}
#: Predict them with those of a few of its cells.
FEW_LABELS = {"fusionttt_transfer": _ours_few, "logistic_own_scale": _logistic_few}
#: Methods that are compared by default: those that need no other library.
DEFAULT = tuple(name for name in ZERO_SHOT if name not in LIBRARIES)
