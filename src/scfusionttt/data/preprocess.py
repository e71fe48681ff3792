"""From raw counts to the inputs of the network, with the constants that a model stores."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import scipy.sparse as sp

from scfusionttt.config import DataConfig
from scfusionttt.data.cells import CiteSeq, cells_with_gene, feature_panels
from scfusionttt.data.cohort import Cohort, warn_of_zeros
from scfusionttt.data.features import Match
from scfusionttt.data.kinds import evenly_drawn
from scfusionttt.data.moments import Moments, add_up, moments
from scfusionttt.data.staining import N_COMPONENTS, staining
from scfusionttt.data.transforms import Standardizer, clr, library_sizes, log_normalize

#: Counts per cell after library-size normalisation, before log1p.
TARGET_SUM = 1e4
#: Scaled values are clipped at +- this many units.
CLIP = 10.0
#: Most cells, and most gene values, in a sample of the cells; more change little.
SAMPLE_CELLS, SAMPLE_VALUES = 5000, 40_000_000


@dataclass(frozen=True)
class Preprocessing:
    """Constants learned on the training cells.

    Parameters
    ----------
    target_sum
        Counts per cell after normalization.
    gene_share
        [g], mean fraction of a cell's counts from each gene; used to scale library sizes up for missing genes.
    log_geometric_mean
        [p], ``mean(log1p(counts))`` of each protein, for the centred log-ratio.
    staining
        [b, p], by how much more (natural log) each batch of the first key stains than the mean cell; see
        :func:`~scfusionttt.data.staining.staining`. No rows without batches.
    rna, protein
        Standardizers of log-normalized genes and of protein log-ratios.
    """

    target_sum: float
    gene_share: np.ndarray
    log_geometric_mean: np.ndarray
    staining: np.ndarray
    rna: Standardizer
    protein: Standardizer

    @classmethod
    def fit(
        cls, cite: CiteSeq, match: Match, config: DataConfig, cohort: Cohort | None = None, *, seed: int = 0
    ) -> "Preprocessing":
        """Compute the constants from cells whose features are matched; missing features get neutral constants.

        `cohort` holds their batches; `seed` draws the cells by which the batches are compared.
        """
        cohort = cohort or Cohort()
        unscaled = cls(
            target_sum=TARGET_SUM,
            gene_share=_gene_share(cite, match),
            log_geometric_mean=_log_geometric_mean(cite, match),
            staining=np.zeros((0, len(match.proteins))),
            rna=Standardizer.identity(len(match.genes)),
            protein=Standardizer.identity(len(match.proteins)),
        )
        unscaled = replace(unscaled, staining=unscaled._staining(cite, match, cohort, seed))
        if config.scale == "none":  # no pass over the cells needed
            return unscaled
        rna, protein = unscaled._moments(cite, match, cohort)
        return replace(unscaled, rna=_scaler(rna, config), protein=_scaler(protein, config, among_few=True))

    def adapted(self, cite: CiteSeq, match: Match, config: DataConfig) -> "Preprocessing":
        """Return the constants with the genes' mean and standard deviation in cells from another platform.

        Genes that these cells lack, and the proteins, keep their constants.
        """
        if config.scale == "none":
            return self
        genes = self._moments(cite, match, Cohort())[0]
        measured = genes.n > 0
        own = _scaler(genes[measured], config)
        mean, std = self.rna.mean.copy(), self.rna.std.copy()
        mean[measured], std[measured] = own.mean, own.std
        return replace(self, rna=replace(self.rna, mean=mean, std=std))

    def log_normalized(self, cite: CiteSeq, match: Match) -> sp.csr_matrix:
        """Return log1p of counts per `target_sum`, [n, g], in the model's gene order, zero where not measured."""
        counts = matched_gene_counts(cite, match)
        return log_normalize(
            counts, target_sum=self.target_sum, library_size=_library_size(counts, cite, match, self.gene_share)
        )

    def log_ratios(self, cite: CiteSeq, match: Match, batches: np.ndarray | None = None) -> np.ndarray:
        """Return centred log-ratios [n, p] in the model's order, NaN where not measured.

        `batches` are the levels of the batch keys [n, keys], -1: none; a cell without a level of the first key
        stains like the mean.
        """
        constants = self.log_geometric_mean
        if batches is not None and batches.shape[1]:
            constants = constants + self.staining_of(batches[:, 0])
        return clr(matched_protein_counts(cite, match), log_geometric_mean=constants)

    def staining_of(self, levels: np.ndarray) -> np.ndarray:
        """Return the rows of `staining` of these levels [n], 0 for others, [n, p]."""
        rows = np.vstack([self.staining, np.zeros_like(self.log_geometric_mean)])
        return rows[np.where(levels < len(self.staining), levels, -1)]

    def with_staining(self, staining: np.ndarray, start: int) -> "Preprocessing":
        """Return the constants with rows for more batches [b, p], whose levels begin with `start`."""
        return replace(self, staining=np.vstack([self.staining_of(np.arange(start)), staining]))

    def unscaled_proteins(self, scaled: np.ndarray, staining: np.ndarray, *, as_counts: bool) -> np.ndarray:
        """Return scaled log-ratios [n, p] as log-ratios or counts, of antibodies that stain by `staining` more."""
        values = scaled * self.protein.std + self.protein.mean
        ratios = np.expm1(values).clip(min=0) * np.exp(staining)
        if as_counts:
            return ratios * np.exp(self.log_geometric_mean)
        return np.where(staining == 0, values, np.log1p(ratios))

    def _staining(self, cite: CiteSeq, match: Match, cohort: Cohort, seed: int) -> np.ndarray:
        """Return how strongly each batch stains, [b, p], by some of the cells."""
        if not cohort.levels or not len(match.proteins):
            return self.staining
        batches = cohort.codes(cite.obs)
        drawn = evenly_drawn(batches, sample_size(len(match.genes)), seed)
        some = cite[drawn]
        genes = self.log_normalized(some, match)[:, _shared_genes(some, match)]
        scaled = Standardizer.fit(moments(genes), clip=CLIP).transform(genes.toarray())
        log_counts = np.log1p(matched_protein_counts(some, match).astype(np.float64))
        if some.protein is not None:
            warn_of_zeros(log_counts, some.protein.var_names[match.proteins], batches[drawn, 0], cohort)
        sizes = np.bincount(batches[:, 0], minlength=len(cohort.first))
        values = staining(scaled, log_counts, batches[drawn], sizes, seed=seed)
        n_cells = sizes[:, None] * np.isfinite(values)
        values = np.nan_to_num(values)
        return np.where(n_cells > 0, values - (n_cells * values).sum(axis=0) / np.maximum(n_cells.sum(axis=0), 1), 0.0)

    def _moments(self, cite: CiteSeq, match: Match, cohort: Cohort) -> tuple[Moments, Moments]:
        """Return the moments of log-normalized genes and of log-ratios."""
        both = add_up(
            moments(self.log_normalized(part, match), _cells_with(part, match)).followed_by(
                moments(self.log_ratios(part, match, cohort.codes(part.obs)))
            )
            for part in cite.blocks()
        )
        n_genes = len(match.genes)
        return both[:n_genes], both[n_genes:]

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, ready for JSON."""
        return {
            "target_sum": self.target_sum,
            "gene_share": self.gene_share.tolist(),
            "log_geometric_mean": self.log_geometric_mean.tolist(),
            "staining": self.staining.tolist(),
            "rna": self.rna.to_dict(),
            "protein": self.protein.to_dict(),
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Preprocessing":
        """Build from the result of :meth:`to_dict`; earlier versions did not compare batches."""
        log_geometric_mean = np.asarray(values["log_geometric_mean"], dtype=np.float64)
        rows = values.get("staining", [])
        return cls(
            target_sum=float(values["target_sum"]),
            gene_share=np.asarray(values["gene_share"], dtype=np.float64),
            log_geometric_mean=log_geometric_mean,
            staining=np.reshape(rows, (len(rows), len(log_geometric_mean))).astype(np.float64),
            rna=Standardizer.from_dict(values["rna"]),
            protein=Standardizer.from_dict(values["protein"]),
        )


def sample_size(n_genes: int) -> int:
    """Return the largest number of cells in a sample."""
    return max(min(SAMPLE_CELLS, SAMPLE_VALUES // n_genes), 2)


def _scaler(values: Moments, config: DataConfig, *, among_few: bool = False) -> Standardizer:
    """Fit the scaler; features of a small curated panel (`among_few`), such as proteins, all get the same weight."""
    scale = "per_feature" if among_few and config.scale == "shrunk" else config.scale
    return Standardizer.fit(values, scale=scale, clip=CLIP)


def matched_gene_counts(cite: CiteSeq, match: Match) -> sp.csr_matrix:
    """Return raw counts [n, g] of the model's genes, in its order; columns that the input lacks are empty."""
    present = np.flatnonzero(match.genes >= 0)
    place = sp.csr_matrix(
        (np.ones(len(present), dtype=np.float32), (match.genes[present], present)),
        shape=(cite.rna.n_vars, len(match.genes)),
    )
    return sp.csr_matrix(cite.rna.X @ place)


def matched_protein_counts(cite: CiteSeq, match: Match) -> np.ndarray:
    """Return raw counts [n, p] of the model's proteins, in its order, NaN where not measured."""
    counts = np.full((cite.rna.n_obs, len(match.proteins)), np.nan, dtype=np.float32)
    present = match.proteins >= 0
    if cite.protein is not None and present.any():
        counts[:, present] = cite.protein.X[:, match.proteins[present]]
    return counts


def present_genes(cite: CiteSeq, match: Match) -> tuple[np.ndarray, np.ndarray]:
    """Return the gene panel of each cell [n], and which of the model's genes each panel has, bool [k, g]."""
    panel, measured = feature_panels(cite.rna)
    return panel, measured[:, match.genes] & (match.genes >= 0)


def _cells_with(cite: CiteSeq, match: Match) -> np.ndarray:
    """Return in how many cells each of the model's genes was measured, [g]."""
    return np.where(match.genes >= 0, cells_with_gene(cite.rna)[match.genes], 0)


def _shared_genes(cite: CiteSeq, match: Match) -> np.ndarray:
    """Return the genes that were measured in all cells, by which kinds are compared, bool [g]; if few, all genes."""
    panel, present = present_genes(cite, match)
    shared = present[np.unique(panel)].all(axis=0)
    return shared if shared.sum() >= N_COMPONENTS else np.ones_like(shared)


def _gene_share(cite: CiteSeq, match: Match) -> np.ndarray:
    """Return each gene's fraction of the counts, corrected for cells in which it was not measured, [g]."""
    total, n = np.zeros(len(match.genes)), np.zeros(len(match.genes))
    n_cells = 0
    for part in cite.blocks():
        total += np.asarray(matched_gene_counts(part, match).sum(axis=0), dtype=np.float64).ravel()
        n += _cells_with(part, match)
        n_cells += part.rna.n_obs
    total *= n_cells / np.maximum(n, 1)
    return total / max(total.sum(), 1.0)


def _log_geometric_mean(cite: CiteSeq, match: Match) -> np.ndarray:
    """Return ``mean(log1p(count))`` of each protein over the cells in which it was measured, [p]."""
    counts = (matched_protein_counts(part, match).astype(np.float64) for part in cite.blocks())
    return add_up(moments(np.log1p(part)) for part in counts).mean


def _library_size(counts: sp.csr_matrix, cite: CiteSeq, match: Match, gene_share: np.ndarray) -> np.ndarray:
    """Return counts per cell over the model's genes, scaled up for genes that were not measured in the cell.

    A cell's values then do not depend on genes outside the model, and little on missing ones.
    """
    panel, present = present_genes(cite, match)
    measured = np.array([float(gene_share[genes].sum()) for genes in present])[panel]
    return library_sizes(counts) / np.maximum(measured, 1e-6)
