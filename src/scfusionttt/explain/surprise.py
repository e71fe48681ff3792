"""Surprise along the genome: the inner loss of the TTT layers at each gene token, by cell.

A TTT layer predicts one projection of every token from another with the inner model trained on the tokens before; the
squared error, ``|f(k) - v|^2 / 2``, is its inner loss, called surprise here. The conventions are those of infercnvpy:
``var`` with chromosome, start and end, ``obsm["X_surprise"]`` and ``uns["surprise"]["chr_pos"]``, so that
``infercnvpy.pl.chromosome_heatmap(adata, use_rep="surprise")`` plots it.
"""

import logging
import warnings
from typing import Literal

import numpy as np
import pandas as pd
from anndata import AnnData
from mudata import MuData

from scfusionttt import keys
from scfusionttt.errors import InputDataError
from scfusionttt.genome.chromosomes import is_main, karyotypic_rank
from scfusionttt.genome.regions import arms

log = logging.getLogger("scfusionttt")

Level = Literal["chromosome", "arm"]


def as_track(loss: np.ndarray, genes: pd.DataFrame, cell_names: pd.Index, *, patch: int, species: str = "") -> AnnData:
    """Return the surprise of each token with its position in the genome.

    Parameters
    ----------
    loss
        [n, t], inner loss of each token, NaN where none of its genes was measured.
    genes
        [g], in the order of the tokens: name, chromosome, start (base pairs).
    cell_names
        [n].
    patch
        Genes per token; the last may have fewer.
    species
        ``human`` or ``mouse``; empty if not known.

    Returns
    -------
    AnnData [n, t]; var: chromosome (``chr1``, missing where unplaced), start and end (base pairs, first and last start
    of the token's genes on that chromosome, which is that of most of them), genes (names, ``;`` between them).
    ``uns["genes"]``: the genes with the number of their token; ``uns["species"]``.
    """
    placed = genes[["name", "chromosome", "start"]].reset_index(drop=True)
    placed["token"] = np.arange(len(genes)) // patch
    rows = [_stretch(part) for _, part in placed.groupby("token", sort=True)]
    var = pd.DataFrame(rows, index=[f"token-{i}" for i in range(len(rows))])
    var = var.astype({"start": "Int64", "end": "Int64"})
    track = AnnData(np.asarray(loss, dtype=np.float32), obs=pd.DataFrame(index=pd.Index(cell_names)), var=var)
    track.uns["genes"] = placed
    track.uns["species"] = species
    return track


def relative(track: AnnData, reference: np.ndarray | None = None) -> AnnData:
    """Standardise a track by the mean and standard deviation of reference cells, token by token.

    Tokens differ far more than cells do, so surprise is informative only relative to normal cells.

    Parameters
    ----------
    reference
        [n] bool, the reference cells; None: all. Those in which a token was not measured are left out for it.

    Raises
    ------
    InputDataError
        No reference cell has RNA.
    """
    loss = np.asarray(track.X)
    baseline = loss if reference is None else loss[np.asarray(reference, dtype=bool)]
    if np.isnan(baseline).all():
        raise InputDataError("surprise needs at least one reference cell with RNA")
    standardized = track.copy()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # NaN for a token that no reference cell has
        standardized.X = (loss - np.nanmean(baseline, axis=0)) / np.maximum(np.nanstd(baseline, axis=0), 1e-6)
    return standardized


def by_region(track: AnnData, regions: "Level | pd.DataFrame" = "chromosome") -> pd.DataFrame:
    """Return the mean surprise of the genes in each region, [n, regions], without regions that have no genes.

    Tokens that were not measured in a cell are left out; the mean is NaN where that leaves none.

    Parameters
    ----------
    regions
        ``chromosome``; ``arm`` (human, GRCh38); or a table with name, chromosome, start and end (base pairs, end not
        included), such as UCSC's cytobands.

    Raises
    ------
    InputDataError
        The track is of another species than human, and the regions are arms.
    """
    species = track.uns.get("species") or "human"  # not in tracks of earlier versions
    if isinstance(regions, str) and regions == "arm" and species != "human":
        raise InputDataError(f"arms are those of human chromosomes, and the genes are of {species}; use 'chromosome'")
    genes = track.uns["genes"].dropna(subset=["chromosome", "start"])
    genes = genes[is_main(genes["chromosome"].astype(str))]
    if isinstance(regions, str):
        name = genes["chromosome"].astype(str) if regions == "chromosome" else arms(genes)
        ordered = genes.assign(region=name).iloc[np.argsort(karyotypic_rank(genes["chromosome"]), kind="stable")]
    else:
        ordered = pd.concat([_inside(genes, region) for region in regions.to_dict("records")])
    codes, names = pd.factorize(ordered["region"])
    genes_tr = np.zeros((track.n_vars, len(names)), dtype=np.float32)
    np.add.at(genes_tr, (ordered["token"].to_numpy(), codes), 1)
    n_genes, values = genes_tr.sum(axis=0), np.asarray(track.X)
    missing = np.isnan(values)
    with np.errstate(divide="ignore", invalid="ignore"):  # regions of which no gene was measured
        mean = np.where(missing, 0, values) @ (genes_tr / n_genes) * (n_genes / (n_genes - missing @ genes_tr))
    return pd.DataFrame(mean, index=track.obs_names, columns=list(names))


def write_track(target: AnnData | MuData, track: AnnData) -> None:
    """Write a track to the user's data as infercnvpy does: obsm, and the positions of the tokens in uns.

    Without ``chr_pos``, where chromosomes begin, if the tokens of one are not next to each other, as in shuffled order.
    """
    main = track.var["chromosome"].notna() & is_main(track.var["chromosome"].astype(str).str.removeprefix("chr"))
    shown = track[:, np.flatnonzero(main)]
    target.obsm[keys.X_SURPRISE] = np.asarray(shown.X)
    var = shown.var[["chromosome", "start", "end"]].astype({"start": np.int64, "end": np.int64})
    target.uns[keys.SURPRISE] = {"var": var}
    chromosome = var["chromosome"].reset_index(drop=True)
    first = chromosome[chromosome != chromosome.shift()]
    if first.is_unique:
        target.uns[keys.SURPRISE]["chr_pos"] = dict(zip(first, map(int, first.index)))
    else:
        log.warning("warning: surprise has no chr_pos to plot it by: this model does not read genes in genome order")


def _stretch(genes: pd.DataFrame) -> dict[str, object]:
    names = ";".join(genes["name"])
    most = genes["chromosome"].mode()
    if not len(most):
        return {"chromosome": None, "start": pd.NA, "end": pd.NA, "genes": names}
    start = genes["start"][genes["chromosome"] == most.iloc[0]]
    return {"chromosome": f"chr{most.iloc[0]}", "start": start.min(), "end": start.max(), "genes": names}


def _inside(genes: pd.DataFrame, region: dict) -> pd.DataFrame:
    inside = genes["chromosome"].astype(str) == str(region["chromosome"]).removeprefix("chr")
    inside &= (genes["start"] >= region["start"]) & (genes["start"] < region["end"])
    return genes[inside].assign(region=region["name"])
