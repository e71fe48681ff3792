"""The cells that every method gets, and the plain values that the peers read."""

import hashlib
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from scipy import sparse

from scfusionttt.data.cells import CiteSeq
from scfusionttt.data.transforms import clr, highly_variable, library_sizes, log_normalize
from scfusionttt.errors import InputDataError
from scfusionttt.labels import usable_labels

#: Most variable genes that the peers read, as many as our model by default.
N_GENES = 4000
#: obs column that tells our model which cells to learn types on.
SPLIT = "benchmark_split"


@dataclass(frozen=True, eq=False)
class Cells:
    """A data set with its labels.

    Parameters
    ----------
    name
        Of the data set, as it stands in the tables.
    cite
        Raw counts.
    key
        obs column with the labels.
    """

    name: str
    cite: CiteSeq
    key: str

    @cached_property
    def _labels(self) -> tuple[np.ndarray, list[str]]:
        return usable_labels(self.cite.obs, self.key)

    @property
    def codes(self) -> np.ndarray:
        """Class of each cell, int64 [n], -1 where unlabelled."""
        return self._labels[0]

    @property
    def classes(self) -> np.ndarray:
        """Names of the classes."""
        return np.asarray(self._labels[1])

    @cached_property
    def labels(self) -> np.ndarray:
        """Name of each cell's class [n], empty where unlabelled."""
        return np.append(self.classes, "")[self.codes].astype(object)

    @cached_property
    def _variable(self) -> np.ndarray:
        return highly_variable(self.cite.rna.X, n_top=N_GENES)

    @cached_property
    def gene_counts(self) -> sparse.csr_matrix:
        """Raw counts of the most variable genes [n, g]."""
        return self.cite.rna.X[:, self._variable]

    @cached_property
    def rna(self) -> sparse.csr_matrix:
        """The same, normalised to 1e4 counts per cell, log1p."""
        return log_normalize(self.gene_counts, library_size=library_sizes(self.cite.rna.X))

    @property
    def has_protein(self) -> bool:
        """Whether there are proteins."""
        return self.cite.protein is not None and self.cite.protein.n_vars > 0

    @property
    def protein_counts(self) -> np.ndarray:
        """Raw counts of the proteins [n, p]; an error where a cell lacks one, which no peer can deal with."""
        assert self.cite.protein is not None
        counts = np.asarray(self.cite.protein.X)
        if not np.isfinite(counts).all():
            raise InputDataError("some cells have proteins that were not measured; leave them out (--cells overlap)")
        return counts

    @cached_property
    def protein(self) -> np.ndarray:
        """Centred log-ratios of the proteins [n, p]."""
        return clr(self.protein_counts)[0]

    @cached_property
    def fingerprint(self) -> str:
        """Says whether names, labels or counts have changed since a row was computed."""
        parts = [*self.cite.rna.obs_names, *self.labels, *self.cite.rna.var_names]
        sums = [library_sizes(self.cite.rna.X)]
        if self.cite.protein is not None:
            parts += list(self.cite.protein.var_names)
            sums.append(np.asarray(self.cite.protein.X, dtype=np.float64).sum(axis=1))
        text = "\n".join(map(str, parts)).encode("utf-8", "surrogatepass")
        return hashlib.sha256(text + b"".join(part.tobytes() for part in sums)).hexdigest()[:16]

    def learning(self, train: np.ndarray, *, rna_only: bool = False) -> CiteSeq:
        """Return the cells with the rows `train` marked as those to learn types on."""
        rows = np.isin(np.arange(len(self.codes)), train)
        obs = self.cite.obs.assign(**{SPLIT: np.where(rows, "train", "test")})
        return replace(self.cite, obs=obs, protein=None if rna_only else self.cite.protein)
