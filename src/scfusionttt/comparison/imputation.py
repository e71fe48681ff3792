"""Proteins predicted from RNA in cells of a batch or study that the method never saw."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import sparse

from scfusionttt.comparison import scvi_baselines, systems
from scfusionttt.comparison.queries import LIBRARIES, N_NEIGHBORS, Query, query_job, require_methods
from scfusionttt.comparison.rows import Job
from scfusionttt.comparison.systems import Counts
from scfusionttt.data.transforms import clr
from scfusionttt.errors import InputDataError
from scfusionttt.evaluation import mean_correlation

#: Landmarks of kernel ridge regression.
N_LANDMARKS = 1000
#: Ridge penalties of the baselines, chosen by leave-one-out error.
PENALTIES = {"ridge": np.logspace(0, 6, 13), "kernel_ridge": np.logspace(-3, 3, 13)}


def jobs(queries: Sequence[Query], methods: Sequence[str], seeds: Sequence[int]) -> list[Job]:
    """Return the jobs of a benchmark of imputation."""
    require_methods(methods, METHODS, "impute")
    return [
        query_job(
            query, name, seed, partial(_score, query, METHODS[name], seed), protocol="imputation", labels="proteins"
        )
        for query in queries for seed in seeds for name in methods
    ]  # fmt: skip


class Prediction(NamedTuple):
    """Scaled predictions [n, p], and the ends of 90 % intervals if the method gives them."""

    mean: np.ndarray
    low: np.ndarray | None = None
    high: np.ndarray | None = None


def _score(query: Query, method: Callable[[Query, np.ndarray, int], Prediction], seed: int) -> dict[str, float]:
    """Return correlations, error and coverage over the proteins that both data sets measured in every cell."""
    train, truth = (
        query.preprocessing.protein.transform(query.preprocessing.log_ratios(cite, match)).astype(float)
        for cite, match in zip((query.train, query.cells), query.matches, strict=True)
    )
    both = np.isfinite(train).all(axis=0) & np.isfinite(truth).all(axis=0)
    if both.sum() < 2:
        raise InputDataError("fewer than two proteins were measured in all cells of both data sets")
    filled = np.nan_to_num(train)  # unmeasured proteins at their mean, 0: they are not scored
    predicted, low, high = method(query, filled, seed)
    predicted, truth = predicted[:, both], truth[:, both]
    scores = {
        "impute_cell_r": mean_correlation(predicted.T, truth.T),
        "impute_protein_r": mean_correlation(predicted, truth),
        "impute_rmse": float(np.sqrt(((predicted - truth) ** 2).mean())),
    }
    if low is not None and high is not None:
        scores["coverage"] = float(((low[:, both] <= truth) & (truth <= high[:, both])).mean())
    return scores


def _fusionttt(query: Query, train: np.ndarray, seed: int) -> Prediction:
    model = query.trained(seed)
    imputed = model.impute(query.cells, intervals=True)
    scaler = model.preprocessing.protein
    tables = (imputed.mean, imputed.low, imputed.high)
    return Prediction(*((table.to_numpy() - scaler.mean) / scaler.std for table in tables))


def _ridge(query: Query, train: np.ndarray, seed: int) -> Prediction:
    from sklearn.linear_model import RidgeCV

    genes, new = query.scaled()
    ridge = RidgeCV(PENALTIES["ridge"], alpha_per_target=True).fit(genes, train)
    return Prediction(ridge.predict(new))


def _kernel_ridge(query: Query, train: np.ndarray, seed: int) -> Prediction:
    from sklearn.kernel_approximation import Nystroem
    from sklearn.linear_model import RidgeCV

    cells, new = query.components(seed)
    distances = ((cells[:500, None] - cells[None, :500]) ** 2).sum(axis=2)
    kernel = Nystroem(
        gamma=1 / np.median(distances[distances > 0]), n_components=min(N_LANDMARKS, len(cells)), random_state=seed
    ).fit(cells)
    ridge = RidgeCV(PENALTIES["kernel_ridge"], alpha_per_target=True).fit(kernel.transform(cells), train)
    return Prediction(ridge.predict(kernel.transform(new)))


def _knn(query: Query, train: np.ndarray, seed: int) -> Prediction:
    from sklearn.neighbors import KNeighborsRegressor

    cells, new = query.components(seed)
    return Prediction(KNeighborsRegressor(min(N_NEIGHBORS, len(cells))).fit(cells, train).predict(new))


def _totalvi(query: Query, train: np.ndarray, seed: int) -> Prediction:
    """Return log-ratios of the counts that totalVI expects; without noise, they differ from measured ones on average.

    So they are centred on those that it expects of the training cells.
    """
    genes, new, _ = query.gene_counts
    counts = scvi_baselines.expected_proteins(genes, query.protein_counts, new, seed)
    ratios = clr(_all_proteins(query, counts), log_geometric_mean=query.preprocessing.log_geometric_mean)
    scaled = query.preprocessing.protein.transform(ratios)
    return Prediction(scaled[len(train) :] - scaled[: len(train)].mean(axis=0))


def _scipenn(query: Query, train: np.ndarray, seed: int) -> Prediction:
    """Return what sciPENN predicts, z-scored logarithms of normalised counts, as it is."""
    genes, new, names = query.gene_counts
    output = systems.SCIPENN.run(Counts(genes, names, query.protein_counts), seed, query=Counts(new, names))
    assert not sparse.issparse(output)
    return Prediction(_all_proteins(query, output))


def _all_proteins(query: Query, values: pd.DataFrame) -> np.ndarray:
    """Return values [n, p] of all proteins, NaN where not predicted."""
    return values.reindex(columns=query.features.proteins["name"]).to_numpy(float)


#: Predict scaled proteins of a query, given those of the training cells [n, p] and a seed.
METHODS = {
    "fusionttt": _fusionttt,
    "ridge": _ridge,
    "kernel_ridge": _kernel_ridge,
    "knn": _knn,
    "totalvi": _totalvi,
    "scipenn": _scipenn,
}
#: Methods that are compared by default: those that need no other library.
DEFAULT = tuple(name for name in METHODS if name not in LIBRARIES)
