"""The cells that every method gets, and the values that the baselines read."""

import logging
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal, TypeAlias

import numpy as np
import pandas as pd
from scipy import sparse

from scfusionttt.comparison.fingerprints import short_hash
from scfusionttt.data.cells import CiteSeq, content_hash, has_rna
from scfusionttt.data.cohort import Cohort
from scfusionttt.data.count_splitting import halves
from scfusionttt.data.transforms import clr, highly_variable, library_sizes, log_normalize
from scfusionttt.errors import name_some
from scfusionttt.labels import class_names, usable_labels

log = logging.getLogger("scfusionttt")

#: Number of most variable genes that the baselines read; the default of our model.
N_GENES = 4000
Modality: TypeAlias = Literal["RNA", "proteins"]
#: obs column with the training split for our model.
SPLIT = "benchmark_split"


@dataclass(frozen=True, eq=False)
class Cells:
    """A data set with its labels.

    Parameters
    ----------
    name
        Name of the data set in the tables.
    cite
        Raw counts.
    labels_key
        obs column with the labels.
    batch_key
        obs column with the batches, whose effects the methods that can are to remove; None: none.
    """

    name: str
    cite: CiteSeq
    labels_key: str
    batch_key: str | None = None

    @cached_property
    def labels(self) -> np.ndarray:
        """Name of each cell's class, str objects [n]; empty where unlabelled or alone in its class."""
        codes, classes = usable_labels(self.cite.obs, self.labels_key, learn=False)
        names = without_single(np.append(classes, "")[codes])
        if single := sorted(set(classes) - set(names)):
            if len(classes) - len(single) < 2:
                usable_labels(self.cite.obs, self.labels_key)  # raises the error
            log.info("%s: classes with only one cell are left out: %s", self.name, name_some(single, most=8))
        return names

    @cached_property
    def classes(self) -> np.ndarray:
        """Names of the classes, sorted."""
        return np.unique(self.labels[self.labels != ""].astype(str))

    @cached_property
    def codes(self) -> np.ndarray:
        """Class of each cell, int64 [n], -1 where it has none."""
        return pd.Index(self.classes).get_indexer(pd.Index(self.labels)).astype(np.int64)

    @cached_property
    def batches(self) -> np.ndarray:
        """Name of each cell's batch, str objects [n]; all the same without a batch key."""
        if self.batch_key is None:
            return np.full(self.cite.rna.n_obs, "", dtype=object)
        Cohort.of(self.cite.obs, self.batch_key)  # raises what is wrong with them
        return class_names(self.cite.obs[self.batch_key])

    @cached_property
    def variable(self) -> np.ndarray:
        """Positions of the most variable genes [g]."""
        return highly_variable(self.cite.with_rna().rna.X, n_top=N_GENES)

    @property
    def gene_counts(self) -> sparse.csr_matrix:
        """Raw counts of the most variable genes [n, g]."""
        return self.cite.rna.X[:, self.variable]

    @cached_property
    def rna(self) -> sparse.csr_matrix:
        """The same genes, normalised to 1e4 counts per cell, log1p [n, g]."""
        return self.normalized(self.variable)

    def normalized(self, genes: np.ndarray) -> sparse.csr_matrix:
        """Return genes at positions [g], normalised to 1e4 counts per cell, log1p [n, g]."""
        return log_normalize(self.cite.rna.X[:, genes], library_size=library_sizes(self.cite.rna.X))

    @property
    def has_protein(self) -> bool:
        """Whether there are proteins."""
        return self.cite.protein is not None and self.cite.protein.n_vars > 0

    @property
    def protein_counts(self) -> np.ndarray:
        """Raw counts of the proteins [n, p], NaN where not measured."""
        assert self.cite.protein is not None
        return np.asarray(self.cite.protein.X)

    @cached_property
    def lacking(self) -> frozenset[Modality]:
        """What was not measured in all cells: RNA, or any protein."""
        complete: dict[Modality, np.bool] = {"RNA": has_rna(self.cite.rna).all()}
        if self.has_protein:
            complete["proteins"] = np.isfinite(self.protein_counts).all()
        return frozenset(name for name, measured in complete.items() if not measured)

    @cached_property
    def protein(self) -> np.ndarray:
        """Centred log-ratios of the proteins [n, p]."""
        return clr(self.protein_counts)

    @cached_property
    def fingerprint(self) -> str:
        """Hash of names, labels and counts, which changes if any of them does."""
        return fingerprint(self.cite, [*self.labels, *self.batches])

    def halves(self, seed: int) -> "tuple[Cells, Cells]":
        """Return the cells twice, with every single count dealt to one of the two at random."""
        first, second = halves(self.cite, seed)
        return replace(self, cite=first), replace(self, cite=second)

    def with_split(self, train: np.ndarray, *, rna_only: bool = False) -> CiteSeq:
        """Return the cells with the rows `train` marked in ``obs[SPLIT]``; cells that are not scored have no label."""
        rows = np.isin(np.arange(len(self.codes)), train)
        obs = self.cite.obs.assign(**{SPLIT: np.where(rows, "train", "test"), self.labels_key: self.labels})
        return replace(self.cite, obs=obs, protein=None if rna_only else self.cite.protein)


def without_single(labels: np.ndarray) -> np.ndarray:
    """Return labels [n], empty where a class has a single cell: no method learns from one."""
    classes, codes, sizes = np.unique(labels.astype(str), return_inverse=True, return_counts=True)
    return np.where(sizes > 1, classes, "")[codes].astype(object)


def fingerprint(cite: CiteSeq, labels: Iterable[object] = ()) -> str:
    """Return a hash of names, labels and counts of cells, which changes if any of them does."""
    parts = [*cite.rna.obs_names, *labels, *cite.rna.var_names]
    if cite.protein is not None:
        parts += list(cite.protein.var_names)
    return short_hash("\n".join(map(str, [*parts, content_hash(cite)])).encode("utf-8", "surrogatepass"))
