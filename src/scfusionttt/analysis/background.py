"""Which cells have a protein, and which have only its background."""

import logging
from dataclasses import dataclass

import numpy as np
import pandas as pd
from anndata import AnnData
from mudata import MuData

from scfusionttt.analysis.protein_mixture import ProteinMixture, fit_droplets
from scfusionttt.data.cells import CiteSeq
from scfusionttt.data.inplace import inplace_target, write_tables
from scfusionttt.data.proteins import protein_columns, protein_counts
from scfusionttt.errors import InputDataError, require_fraction
from scfusionttt.genome.antibodies import resolve_antibodies
from scfusionttt.keys import PROTEIN_POSITIVE, PROTEIN_PROBABILITY

log = logging.getLogger("scfusionttt")

#: Fewest cells, and fewest empty droplets, to fit to.
FEWEST_CELLS, FEWEST_DROPLETS = 50, 100


@dataclass(frozen=True, eq=False)
class ProteinCalls:
    """Positive and negative cells of each protein.

    Attributes
    ----------
    probability
        Probability that the cell has the protein, and not only background, [n, p]; NaN where not measured.
    positive
        Whether the probability reaches the threshold, bool [n, p]; False where not measured.
    proteins
        For each protein its mean background (counts), the fraction of positive cells (NaN if no cell was measured) and,
        if empty droplets were given, that of positive droplets.
    """

    probability: pd.DataFrame
    positive: pd.DataFrame
    proteins: pd.DataFrame

    def obsm(self) -> dict[str, pd.DataFrame]:
        """Return both tables by their slots in obsm."""
        return {PROTEIN_POSITIVE: self.positive, PROTEIN_PROBABILITY: self.probability}


def background(
    data: AnnData | MuData | CiteSeq,
    *,
    empty: AnnData | MuData | None = None,
    threshold: float = 0.9,
    seed: int = 0,
    inplace: bool = False,
    protein_modality: str | None = None,
    layer: str | None = None,
    round: bool = False,
) -> ProteinCalls:
    """Tell which cells have a protein from those with only its background, in counts of CITE-seq.

    The counts of a protein are a mixture of background and expression, see
    :class:`~scfusionttt.analysis.protein_mixture.ProteinMixture`. Empty droplets show the background of each protein,
    also of one that all cells have; without them it is the lowest level of a protein in the cells. Isotype controls
    are recognised by their names and show the background of each cell.

    Parameters
    ----------
    data
        Cells, with or without RNA. They should be of one run: run it once per batch.
    empty
        Empty droplets with the same proteins, or the raw matrix of all barcodes: those of the cells, and barcodes with
        fewer counts than proteins or more than the median cell, are left out.
    threshold
        Probability from which a cell is positive.
    seed
        Draws the cells to fit to, if there are more than 5,000.
    inplace
        Also write both tables to ``data.obsm["protein_positive"]`` and ``data.obsm["protein_positive_probability"]``.
    protein_modality, layer, round
        See :func:`~scfusionttt.data.assemble.as_citeseq`.

    Raises
    ------
    InputDataError
        There are no proteins, too few cells or empty droplets, or `inplace` is set with an object that results cannot
        be written into.
    """
    require_fraction("threshold", threshold, example=0.9)
    protein = protein_counts(data, protein_modality=protein_modality, layer=layer, round=round)
    target = inplace_target(data, protein.obs_names, subset=True) if inplace else None
    n_measured = int(_measured(protein).sum())
    if n_measured < FEWEST_CELLS:
        raise InputDataError(
            f"{n_measured} cells with proteins are too few to find the background; {FEWEST_CELLS} are needed"
        )
    kind = resolve_antibodies(protein.var_names).table["kind"].to_numpy()
    kept = np.isin(kind, ["antibody", "isotype"])
    counts, controls = protein.X[:, kept], kind[kept] == "isotype"
    names = protein_columns(protein.var_names)[kept]
    if controls.all():
        raise InputDataError("there are no proteins other than isotype controls and hashtags")
    droplets = None
    if empty is not None:
        others = protein_counts(empty, protein_modality=protein_modality, layer=layer, round=round)
        droplets = _empty_droplets(others, protein[:, kept], names)
    fitted = None if droplets is None else fit_droplets(droplets, controls, seed=seed)
    mixture = ProteinMixture.fit(counts, controls, fitted, seed=seed)
    log.info(
        "background of %d proteins from %d cells, %d isotype controls and %s", (~controls).sum(), n_measured,
        controls.sum(), "no empty droplets" if droplets is None else f"{len(droplets)} empty droplets",
    )  # fmt: skip

    probability = mixture.probability(counts)[:, ~controls]
    with np.errstate(invalid="ignore"):  # NaN where a protein was not measured
        positive = probability >= threshold
    columns = {"index": protein.obs_names, "columns": names[~controls]}
    calls = ProteinCalls(
        probability=pd.DataFrame(probability, **columns),
        positive=pd.DataFrame(positive, **columns),
        proteins=_summary(names, controls, mixture, probability, droplets, threshold),
    )
    if target is not None:
        cells, missing = target.obs_names.astype(str), {PROTEIN_POSITIVE: False, PROTEIN_PROBABILITY: np.nan}
        tables = {key: table.reindex(cells, fill_value=missing[key]) for key, table in calls.obsm().items()}
        write_tables(target, tables)
    return calls


def _summary(
    names: pd.Index,
    controls: np.ndarray,
    mixture: ProteinMixture,
    probability: np.ndarray,
    droplets: np.ndarray | None,
    threshold: float,
) -> pd.DataFrame:
    """Return the table :attr:`ProteinCalls.proteins`; `names` and `controls` [q] include the isotype controls."""
    measured = np.isfinite(probability).sum(axis=0)
    table = pd.DataFrame({"background": mixture.background[~controls]}, index=names[~controls].rename("protein"))
    with np.errstate(invalid="ignore"):
        table["positive"] = (probability >= threshold).sum(axis=0) / measured
    if droplets is None:
        table.loc[measured == 0, "background"] = np.nan
    else:
        table["positive_droplets"] = (mixture.probability(droplets)[:, ~controls] >= threshold).mean(axis=0)
    return table


def _empty_droplets(droplets: AnnData, cells: AnnData, names: pd.Index) -> np.ndarray:
    """Return the counts [m, p] of the droplets that show the background."""
    columns = protein_columns(droplets.var_names)
    missing = names.difference(columns)
    if len(missing):
        raise InputDataError(f"the empty droplets lack {len(missing)} of the proteins, such as {missing[0]}")
    droplets = droplets[~droplets.obs_names.isin(cells.obs_names)]
    counts = np.nan_to_num(droplets.X[:, columns.get_indexer(names)])
    total, most = counts.sum(axis=1), np.median(np.nansum(cells.X, axis=1)[_measured(cells)])
    counts = counts[(total >= len(names)) & (total <= most)]
    if len(counts) < FEWEST_DROPLETS:
        raise InputDataError(
            f"{len(counts)} empty droplets have between {len(names)} and {most:.0f} protein counts, but "
            f"{FEWEST_DROPLETS} are needed; leave out empty to use the cells alone"
        )
    return counts


def _measured(protein: AnnData) -> np.ndarray:
    """Return in which cells any protein was measured, bool [n]."""
    return np.isfinite(protein.X).any(axis=1)
