"""Cell types of RNA-only queries, named with a CITE-seq reference: without labels of the query, and with a few."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache, partial
from typing import Any

import numpy as np
from scipy import sparse

from scfusionttt.comparison import scvi_baselines, systems
from scfusionttt.comparison.cost import Cost, measure
from scfusionttt.comparison.fingerprints import short_hash
from scfusionttt.comparison.queries import N_COMPONENTS, N_NEIGHBORS, Query, QueryJob, mapped_labels
from scfusionttt.comparison.systems import Counts, System
from scfusionttt.data.split import stratified_split
from scfusionttt.errors import SettingError, name_some
from scfusionttt.evaluation import evaluate_predictions
from scfusionttt.evaluation.baselines import logistic_regression, pca
from scfusionttt.labels import label_names, obs_column
from scfusionttt.model.fusionttt import FusionTTT

log = logging.getLogger("scfusionttt")

_SPLIT = "benchmark_split"


def jobs(
    queries: Sequence[Query],
    methods: Sequence[str],
    seeds: Sequence[int],
    *,
    labels_key: str,
    mapping: dict[str, str],
    shares: Sequence[float],
) -> list[QueryJob]:
    """Return the jobs of a benchmark of transfer: zero-shot, and with `shares` of the query's labels."""
    for name in methods:
        if name not in METHODS:
            raise SettingError(f"there is no method {name!r} for the task transfer; choose among {', '.join(METHODS)}")
    result = []
    for query in queries:
        query = _learnable(query, labels_key)
        truth = mapped_labels(query, labels_key, mapping)
        learned = label_names(obs_column(query.train.obs, labels_key))
        hashes = tuple(short_hash("\n".join(names).encode("utf-8", "surrogatepass")) for names in (learned, truth))
        for seed in seeds:
            for name in methods:
                common: dict[str, Any] = {
                    "query": query, "labels": labels_key, "method": name, "seed": seed,
                    "library": LIBRARIES.get(name, ""), "label_hashes": hashes,
                }  # fmt: skip
                if name in OURS:
                    common["prepare"] = partial(_cost_of_training, query, labels_key, seed)
                if name in ZERO_SHOT:
                    score = partial(_zero_shot, query, ZERO_SHOT[name], truth, labels_key, seed)
                    result.append(QueryJob(protocol="zero-shot", score=score, **common))
                if name in FEW_LABELS:
                    result += [
                        QueryJob(
                            protocol="held-out", share=share,
                            score=partial(_few_labels, query, FEW_LABELS[name], truth, labels_key, share, seed),
                            **common,
                        )
                        for share in shares
                    ]  # fmt: skip
    return result


def _learnable(query: Query, key: str) -> Query:
    """Return the query with the training cells that are alone in their class unlabelled: no method learns from one."""
    names = label_names(obs_column(query.train.obs, key))
    learnable = _without_single(names)
    if (learnable == names).all():
        return query
    single = sorted(set(names) - set(learnable))
    log.info("%s: classes with only one cell are left out: %s", query.name, name_some(single))
    return replace(query, train=replace(query.train, obs=query.train.obs.assign(**{key: learnable})))


def _without_single(names: np.ndarray) -> np.ndarray:
    """Return labels [n], empty where a class has one cell."""
    classes, code, size = np.unique(names.astype(str), return_inverse=True, return_counts=True)
    return np.where(size > 1, classes, "")[code].astype(object)


def _zero_shot(
    query: Query, method: Callable[[Query, str, int], np.ndarray], truth: np.ndarray, key: str, seed: int
) -> dict[str, float]:
    known = truth != ""
    return _metrics(method(query, key, seed)[known], truth[known])


def _few_labels(
    query: Query, method: Callable[..., np.ndarray], truth: np.ndarray, key: str, share: float, seed: int
) -> dict[str, float]:
    truth = _without_single(truth)
    names, codes = np.unique(truth, return_inverse=True)
    codes = codes - int(names[0] == "")  # unlabelled cells, which sort first, become -1
    train, held_out = stratified_split(codes, fraction=share, seed=seed)
    return _metrics(method(query, truth, train, key, seed)[held_out], truth[held_out])


def _metrics(predicted: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    return dict(evaluate_predictions(predicted, truth, protocol="zero-shot").to_dict()["metrics"])


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
    import pandas as pd
    from harmonypy import run_harmony
    from sklearn.neighbors import KNeighborsClassifier

    train, new = query.components(seed)
    both = np.vstack([train, new])
    batch = pd.DataFrame({"batch": np.repeat(["train", "query"], [len(train), len(new)])})
    mixed = run_harmony(both, batch, ["batch"], random_state=seed, verbose=False).Z_corr
    mixed = mixed if len(mixed) == len(both) else mixed.T
    names = label_names(obs_column(query.train.obs, key))
    known = np.flatnonzero(names != "")
    return KNeighborsClassifier(N_NEIGHBORS).fit(mixed[known], names[known].astype(str)).predict(mixed[len(train) :])


def _system(system: System, query: Query, key: str, seed: int) -> np.ndarray:
    train, new, genes = query.gene_counts
    labels = label_names(obs_column(query.train.obs, key))
    output = system.run(Counts(train, genes, labels=labels), seed, query=Counts(new, genes))
    assert not sparse.issparse(output)
    return output["label"].to_numpy(str)


def _scanvi_surgery(query: Query, key: str, seed: int) -> np.ndarray:
    train, new, _ = query.gene_counts
    return scvi_baselines.scanvi_surgery(train, label_names(obs_column(query.train.obs, key)), new, seed)


def _classified(train: np.ndarray, new: np.ndarray, query: Query, key: str) -> np.ndarray:
    names = label_names(obs_column(query.train.obs, key))
    known = names != ""
    return logistic_regression(train[known], names[known], new)[0]


def _ours_few(query: Query, truth: np.ndarray, train: np.ndarray, key: str, seed: int) -> np.ndarray:
    split = np.where(truth == "", "", "test").astype(object)
    split[train] = "train"
    obs = query.cells.obs.copy()
    obs[key], obs[_SPLIT] = truth, split
    cells = replace(query.cells, obs=obs, protein=None)
    student = _finetuned(query, key, seed)[0].transfer(cells, labels_key=key, split=_SPLIT)
    return student.predict(cells)["label"].to_numpy(str)


def _logistic_few(query: Query, truth: np.ndarray, train: np.ndarray, key: str, seed: int) -> np.ndarray:
    components = pca(query.genes[1], N_COMPONENTS, seed=seed)
    return logistic_regression(components[train], truth[train], components)[0]


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
#: What methods need besides the requirements of this package.
LIBRARIES: dict[str, str | System] = {
    "celltypist": systems.CELLTYPIST, "symphony": systems.SYMPHONY, "scanvi_surgery": "scvi-tools",
}  # fmt: skip
#: Methods that learn from labels of the query, too.
FEW_LABELS: dict[str, Callable[..., np.ndarray]] = {
    "fusionttt_transfer": _ours_few,
    "logistic_own_scale": _logistic_few,
}
METHODS = tuple(dict.fromkeys([*ZERO_SHOT, *FEW_LABELS]))
#: Methods of our model, which share one that is trained on the reference.
OURS = tuple(name for name in METHODS if name.startswith("fusionttt"))
#: Methods that are compared by default.
DEFAULT = tuple(name for name in METHODS if name not in LIBRARIES)
