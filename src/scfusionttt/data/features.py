"""What a model expects of its input: features in genome order, and how an input's features match them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from scfusionttt.config import DataConfig
from scfusionttt.data.citeseq import CiteSeq
from scfusionttt.data.preprocess import highly_variable
from scfusionttt.errors import FeatureError, InputFileError, name_some
from scfusionttt.genome.antibodies import resolve_antibodies
from scfusionttt.genome.antibody_names import antigen, key
from scfusionttt.genome.orders import order_features
from scfusionttt.genome.resolve import resolve_genes

#: Columns of :attr:`Features.table`.
COLUMNS = ["modality", "name", "gene_id", "symbol", "chromosome", "start"]


@dataclass(frozen=True)
class Features:
    """The features of a model: genes, then proteins, each in the order of the tokens.

    Parameters
    ----------
    table
        One row per feature: modality (``rna`` or ``protein``), name, gene_id, symbol, chromosome, start (base pairs).
        A feature is (modality, name): CD4 the gene and CD4 the antibody do not collide.
    species
        ``human`` or ``mouse``.
    """

    table: pd.DataFrame
    species: str

    @property
    def genes(self) -> pd.DataFrame:
        """Rows of the genes [g]."""
        return self.table[self.table["modality"] == "rna"]

    @property
    def proteins(self) -> pd.DataFrame:
        """Rows of the proteins [p]."""
        return self.table[self.table["modality"] == "protein"]


@dataclass(frozen=True)
class Match:
    """Where each of a model's features stands in an input: column numbers, -1 where the input lacks it."""

    genes: np.ndarray  # [g] int
    proteins: np.ndarray  # [p] int
    notes: tuple[str, ...] = ()


def choose_features(cite: CiteSeq, config: DataConfig, *, species: str | None = None) -> tuple[Features, list[str]]:
    """Choose and order the features that a new model learns from.

    Returns
    -------
    The features and one line per thing the user should know: what was placed, lost, left out.

    Raises
    ------
    FeatureError
        When the names are not of a known species, or no gene is left.
    """
    names = cite.rna.var_names
    resolution = resolve_genes(names, gene_ids=cite.rna.var.get("gene_ids"), species=species)
    notes = [f"genes: {resolution.summary()}"]
    chosen = np.arange(len(names))
    if config.n_genes is not None and config.n_genes < len(names):
        chosen = np.sort(highly_variable(cite.rna.X, n_top=config.n_genes))
        notes.append(f"genes: the {len(chosen)} most variable of {len(names)} are used")
    genes = _rows(resolution.table.iloc[chosen], modality="rna")
    expression = np.asarray(cite.rna.X.mean(axis=0)).ravel()[chosen]
    parts = [_ordered(genes, config, expression=expression)]

    if cite.protein is not None:
        panel = resolve_antibodies(cite.protein.var_names, species=resolution.species)
        kinds = panel.table["kind"].to_numpy()
        kept = np.ones(len(kinds), dtype=bool)
        for kind in ("hashtag", *(() if config.keep_isotypes else ("isotype",))):
            left_out = panel.table["name"][kinds == kind].tolist()
            kept &= kinds != kind
            if left_out:
                notes.append(f"proteins: {len(left_out)} {kind}s left out: {name_some(left_out, most=8)}")
        proteins = _rows(panel.table[kept], modality="protein")
        placed = int(proteins["chromosome"].notna().sum())
        notes.append(f"proteins: {placed} of {len(proteins)} placed at their coding gene")
        mean = np.nan_to_num(np.nanmean(cite.protein.X, axis=0))[kept] if kept.any() else np.zeros(0)
        parts.append(_ordered(proteins, config, expression=mean))
    table = pd.concat([part for part in parts if len(part)], ignore_index=True)
    return Features(table=table, species=resolution.species), notes


def match_features(cite: CiteSeq, features: Features, *, min_overlap: float = 0.5) -> Match:
    """Find a model's features in an input: by name, then Ensembl id, then what the names resolve to.

    Raises
    ------
    FeatureError
        When fewer than `min_overlap` of the model's genes are found.
    """
    genes = features.genes
    found = _find(genes["name"], cite.rna.var_names)
    if (found < 0).any():
        found = _fill_by_gene_id(found, genes, cite, features.species)
    share = float((found >= 0).mean())
    if share < min_overlap:
        raise FeatureError(_too_few(found, genes, cite, features.species))
    notes = [f"genes: {int((found >= 0).sum())} of the model's {len(genes)} found; the rest count as not measured"]

    proteins = features.proteins
    positions = np.full(len(proteins), -1)
    if cite.protein is not None and len(proteins):
        names = cite.protein.var_names
        positions = _find(proteins["name"], names)
        by_antigen = _find(proteins["name"].map(_antigen_key), names.map(_antigen_key))
        positions = np.where(positions >= 0, positions, by_antigen)
        notes.append(f"proteins: {int((positions >= 0).sum())} of the model's {len(proteins)} found")
    return Match(genes=found, proteins=positions, notes=tuple(notes))


def _rows(resolved: pd.DataFrame, *, modality: str) -> pd.DataFrame:
    return resolved.assign(modality=modality)[COLUMNS].reset_index(drop=True)


def _ordered(rows: pd.DataFrame, config: DataConfig, *, expression: np.ndarray) -> pd.DataFrame:
    names = _read_names(config.order_file) if config.order == "list" else None
    order = order_features(rows, config.order, seed=config.order_seed, expression=expression, names=names)
    return rows.iloc[order]


def _read_names(path: str | None) -> list[str]:
    if path is None:
        raise FeatureError("data.order=list needs data.order_file, a text file with one name a line")
    try:
        return Path(path).read_text(encoding="utf-8").split()
    except OSError as error:
        raise InputFileError(f"{path}: cannot be read ({error.strerror}); give a text file with names") from error


def _antigen_key(name: str) -> str:
    """Fold what vendors put around an antigen's name: CD45RA stays apart from CD45RO, which the same gene codes."""
    return key(antigen(name))


def _find(wanted: pd.Series, names: Sequence[str] | pd.Index) -> np.ndarray:
    """Return where each wanted name first stands among the names, -1 where it does not."""
    position = pd.Series(np.arange(len(names)), index=pd.Index(names))
    position = position[~position.index.duplicated() & position.index.notna()]
    return position.reindex(wanted.to_numpy()).fillna(-1).astype(int).to_numpy()


def _fill_by_gene_id(found: np.ndarray, genes: pd.DataFrame, cite: CiteSeq, species: str) -> np.ndarray:
    """Find the genes still missing by the Ensembl ids that both sides resolve to; no column is used twice."""
    table = resolve_genes(cite.rna.var_names, gene_ids=cite.rna.var.get("gene_ids"), species=species).table
    by_id = np.where(genes["gene_id"].notna(), _find(genes["gene_id"], pd.Index(table["gene_id"])), -1)
    by_id[np.isin(by_id, found[found >= 0])] = -1
    return np.where(found >= 0, found, by_id)


def _too_few(found: np.ndarray, genes: pd.DataFrame, cite: CiteSeq, species: str) -> str:
    missing = genes["name"][found < 0].tolist()
    return (
        f"only {int((found >= 0).sum())} of the model's {len(genes)} genes are in the input (missing: "
        f"{name_some(missing)}; the input has {name_some(list(cite.rna.var_names))}); "
        f"the model is for {species}: give {species} data with symbols or Ensembl ids"
    )
