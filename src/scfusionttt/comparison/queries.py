"""Benchmarks on a query: methods learn from a data set and are scored on another, or on a batch they never saw."""

import json
import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property

import numpy as np
import pandas as pd
from scipy import sparse

from scfusionttt.comparison.cells import fingerprint
from scfusionttt.comparison.cost import Cost, measure
from scfusionttt.comparison.fingerprints import file_hash, short_hash
from scfusionttt.comparison.rows import Job, Row
from scfusionttt.comparison.systems import CELLTYPIST, SCIPENN, SYMPHONY, System
from scfusionttt.config import Config
from scfusionttt.data.cells import CiteSeq, require_rna
from scfusionttt.data.cohort import Cohort, query_batches
from scfusionttt.data.features import Features, Match, choose_features, match_features
from scfusionttt.data.preprocess import Preprocessing, matched_gene_counts, matched_protein_counts
from scfusionttt.errors import InputDataError, LabelError, SettingError, name_some
from scfusionttt.evaluation.baselines import zscore
from scfusionttt.labels import label_names, obs_column
from scfusionttt.model.fusionttt import FusionTTT

log = logging.getLogger("scfusionttt")

#: Components and neighbours of the baselines.
N_COMPONENTS, N_NEIGHBORS = 50, 15
#: What a method needs that is not installed with the package: a distribution of the extra ``bench``, or a system.
LIBRARIES: dict[str, str | System] = {
    "totalvi": "scvi-tools", "scanvi_surgery": "scvi-tools",
    **{system.name: system for system in (SCIPENN, CELLTYPIST, SYMPHONY)},
}  # fmt: skip


@dataclass(frozen=True, eq=False)
class Query:
    """A data set to learn from, and cells of another batch, platform or study to be scored on.

    Parameters
    ----------
    name
        Name of the pair in the tables.
    train, cells
        Raw counts of both.
    config, device
        Of our model.
    """

    name: str
    train: CiteSeq
    cells: CiteSeq
    config: Config
    device: str = "auto"

    @cached_property
    def features(self) -> Features:
        """The features of the training cells that every method reads: those of our model."""
        return choose_features(self.train, self.config.data)[0]

    @cached_property
    def matches(self) -> tuple[Match, Match]:
        """The columns of these features in both data sets."""
        return match_features(self.train, self.features), match_features(self.cells, self.features)

    @cached_property
    def preprocessing(self) -> Preprocessing:
        """The constants of the training cells."""
        return Preprocessing.fit(self.train, self.matches[0], self.config.data)

    @cached_property
    def shared_genes(self) -> np.ndarray:
        """Which of the genes both data sets have, bool."""
        train, query = self.matches
        return (train.genes >= 0) & (query.genes >= 0)

    @cached_property
    def genes(self) -> tuple[np.ndarray, np.ndarray]:
        """Log-normalised genes [n, g] that both data sets have."""
        train, query = self.matches
        values = (self.preprocessing.log_normalized(*pair) for pair in ((self.train, train), (self.cells, query)))
        first, second = (matrix[:, self.shared_genes].toarray() for matrix in values)
        return first, second

    @cached_property
    def gene_counts(self) -> tuple[sparse.csr_matrix, sparse.csr_matrix, pd.Index]:
        """Raw counts [n, g] of the same genes in both, and their names."""
        pairs = zip((self.train, self.cells), self.matches, strict=True)
        train, query = (matched_gene_counts(cite, match)[:, self.shared_genes] for cite, match in pairs)
        return train, query, pd.Index(self.features.genes["name"].to_numpy()[self.shared_genes])

    @cached_property
    def protein_counts(self) -> pd.DataFrame:
        """Raw counts of the proteins [n, p] that were measured in every training cell."""
        names = self.features.proteins["name"].to_numpy()
        counts = pd.DataFrame(matched_protein_counts(self.train, self.matches[0]), columns=names)
        return counts.dropna(axis="columns")

    def train_labels(self, key: str) -> np.ndarray:
        """Return the label of each training cell in this column of obs, "" where it has none, [n]."""
        return label_names(obs_column(self.train.obs, key))

    def scaled(self, *, own: bool = False) -> tuple[np.ndarray, np.ndarray]:
        """Return z-scored genes of both: in the scale of the training cells or, with `own`, each in its own."""
        train, query = self.genes
        if own:
            return zscore(train), zscore(query)
        both = zscore(np.vstack([train, query]), fit_on=np.arange(len(train)))
        return both[: len(train)], both[len(train) :]

    def components(self, seed: int, *, own: bool = False) -> tuple[np.ndarray, np.ndarray]:
        """Return principal components of the training cells [n, k] of both; `own` as in :meth:`scaled`."""
        from sklearn.decomposition import PCA

        genes, new = self.scaled(own=own)
        pca = PCA(min(N_COMPONENTS, *genes.shape), svd_solver="randomized", random_state=seed).fit(genes)
        return pca.transform(genes), pca.transform(new)

    def trained(self, seed: int) -> FusionTTT:
        """Return our model, pretrained on the training cells."""
        model = FusionTTT(device=self.device, progress=False)
        model.config = replace(self.config, seed=seed)
        return model.pretrain(self.train)

    @cached_property
    def fingerprint(self) -> list[str]:
        """Hashes that change if cells or counts of either data set do, or what every method reads of them."""
        data = self.config.data
        read = json.dumps([asdict(data), file_hash(data.order_file)])
        return [*(fingerprint(part) for part in (self.train, self.cells)), short_hash(read.encode())]


def make_queries(
    datasets: Sequence[tuple[str, CiteSeq]], config: Config, device: str = "auto", *, batch_key: str | None = None
) -> list[Query]:
    """Return a query per named data set but the first, learned from the first; with a batch key, those `by_batch`.

    Raises
    ------
    InputDataError
        Some cells lack RNA, from which all methods predict.
    """
    for _, cite in datasets:
        require_rna(cite, "a query")
    if batch_key is not None:
        return [query for name, cite in datasets for query in by_batch(name, cite, batch_key, config, device)]
    (name, train), *others = datasets
    return [Query(f"{name} to {other}", train, cite, config, device) for other, cite in others]


def by_batch(name: str, cite: CiteSeq, key: str, config: Config, device: str) -> list[Query]:
    """Return a query per batch, learned from the other batches.

    Raises
    ------
    InputDataError
        There is one batch, or a cell without one.
    """
    names = query_batches(cite, key, Cohort())
    batches = sorted(set(names))
    if len(batches) < 2:
        raise InputDataError(f"obs['{key}'] must have at least two batches, of which each is held out in turn")
    return [
        Query(f"{name}, {batch} held out", cite[names != batch], cite[names == batch], config, device)
        for batch in batches
    ]


def query_job(
    query: Query,
    method: str,
    seed: int,
    score: Callable[[], dict[str, float]],
    *,
    protocol: str,
    labels: str,
    share: float | None = None,
    label_hashes: Sequence[str] = (),
    prepare: Callable[[], Cost] = Cost,
) -> Job:
    """Return a row to compute; `score` returns its metrics.

    The `label_hashes` are those of the labels that are learned and scored. Work that several rows share is in
    `prepare`, which runs once and returns its cost, which is added to each of these rows.
    """
    inputs: Row = {
        "dataset": query.name,
        "labels": labels,
        "protocol": protocol,
        "share": share,
        "method": method,
        "seed": seed,
        "settings": query.config.to_dict() if method.startswith("fusionttt") else None,
        "cells": [*query.fingerprint, *label_hashes],
    }

    def scored() -> tuple[Row, Cost]:
        shared = prepare()
        metrics, cost = measure(score)
        return {"metrics": metrics}, shared + cost

    return Job(inputs, scored, LIBRARIES.get(method, ""))


def require_methods(names: Sequence[str], known: Iterable[str], task: str) -> None:
    """Raise a SettingError if a name is not that of a method for the task."""
    for name in names:
        if name not in known:
            raise SettingError(f"there is no method {name!r} for the task {task}; choose among {', '.join(known)}")


def mapped_labels(query: Query, key: str, mapping: dict[str, str]) -> np.ndarray:
    """Return the label of each query cell in the classes of the training cells, empty where there is none.

    `mapping` translates labels of the query; others keep their names. Labels that the training cells lack are logged.

    Raises
    ------
    LabelError
        No cell has a label that the training cells have.
    """
    known = set(query.train_labels(key)) - {""}
    names = pd.Series(label_names(obs_column(query.cells.obs, key))).replace(mapping)
    truth = names.where(names.isin(known), "").to_numpy(dtype=object)
    if not (truth != "").any():
        raise LabelError(
            f"no cell of the query has a label of the training cells in obs['{key}']; map them with label_map"
        )
    foreign = names[(names != "") & (truth == "")]
    if len(foreign):
        lacking = f"the reference lacks their labels: {name_some(sorted(set(foreign)), most=8)}"
        log.info("%s: %d cells are not scored, as %s", query.name, len(foreign), lacking)
    return truth
