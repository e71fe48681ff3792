"""The features of a model, in genome order, and how those of an input match them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from scfusionttt.config import DataConfig
from scfusionttt.data.antibody_matching import fill, match_proteins, renamed_proteins, unrepeated
from scfusionttt.data.cells import CiteSeq, cells_with_gene
from scfusionttt.data.moments import Moments, add_up, moments
from scfusionttt.data.transforms import most_variable, scaled_moments
from scfusionttt.errors import FeatureError, InputFileError, name_some
from scfusionttt.genome.antibodies import resolve_antibodies
from scfusionttt.genome.names import as_text, other_species
from scfusionttt.genome.orders import order_features
from scfusionttt.genome.resolve import Resolution, resolve_genes
from scfusionttt.genome.species import infer_species

#: Kinds of antibodies that may be left out, as named in notes.
_NOUNS = {"bookkeeping": "bookkeeping row", "hashtag": "hashtag", "isotype": "isotype"}
#: Smallest fraction of genes with a place in the genome.
MIN_PLACED = 0.1
#: Smallest fraction of a model's genes that an input must have.
MIN_MATCHED = 0.5
#: Columns of :attr:`Features.table`.
COLUMNS = ["modality", "name", "gene_id", "symbol", "chromosome", "start"]


@dataclass(frozen=True)
class Features:
    """The features of a model: genes, then proteins, each in the order of the tokens.

    Parameters
    ----------
    table
        One row per feature: modality (``rna`` or ``protein``), name, gene_id, symbol, chromosome, start (base pairs).
        Features are identified by (modality, name): the gene CD4 and the antibody CD4 do not collide.
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
    """The column of each of a model's features in an input, -1 where the input lacks it.

    `notes` has a line on the genes and, if model and input have proteins, one on these.
    """

    genes: np.ndarray  # [g] int
    proteins: np.ndarray  # [p] int
    notes: tuple[str, ...] = ()


def choose_features(cite: CiteSeq, config: DataConfig, *, species: str | None = None) -> tuple[Features, list[str]]:
    """Choose and order the features of a new model.

    Returns
    -------
    features, notes
        `notes` has lines for the user: how many features were placed in the genome, and which were left out.

    Raises
    ------
    FeatureError
        The species is not known, hardly any gene has a place in its genome, or no name in `config.order_file` matches.
    InputFileError
        That file cannot be read.
    """
    names = cite.rna.var_names
    resolution = resolve_genes(names, gene_ids=cite.rna.var.get("gene_ids"), species=species)
    require_placed(resolution)
    notes = [f"genes: {resolution.summary()}", *_doubts_about_species(cite, resolution.species)]
    chosen = np.arange(len(names))
    if config.n_genes is not None and config.n_genes < len(names):
        chosen = most_variable(_scaled_moments(cite), n_top=config.n_genes)
        notes.append(f"genes: using the {len(chosen)} most variable of {len(names)}")
    genes = _rows(resolution.table.iloc[chosen], modality="rna")
    if _unsupported_species(cite) is not None:
        genes["gene_id"] = None  # the symbols were used as those of `species`, and the ids are from another
    expression = _mean_counts(cite) if config.order == "expression" else None
    listed = _read_names(config.order_file) if config.order == "list" else []
    parts = [_ordered(genes, config, expression=None if expression is None else expression[0][chosen], listed=listed)]

    if cite.protein is not None:
        panel = resolve_antibodies(cite.protein.var_names, species=resolution.species)
        kept, left_out = _proteins_kept(panel.table, keep_isotypes=config.keep_isotypes)
        notes += left_out
        proteins = _rows(panel.table[kept], modality="protein")
        placed = int(proteins["chromosome"].notna().sum())
        notes.append(f"proteins: {placed} of {len(proteins)} placed at their coding gene")
        of_kept = None if expression is None else expression[1][kept]
        parts.append(_ordered(proteins, config, expression=of_kept, listed=listed))
    table = pd.concat([part for part in parts if len(part)], ignore_index=True)
    if config.order == "list":
        n_listed = int(_is_listed(table, listed).sum())
        if not n_listed:
            raise FeatureError(f"{config.order_file}: none of its names is in the input; check the spelling")
        notes.append(f"order: {n_listed} of {len(table)} features as in {config.order_file}, followed by the others")
    return Features(table=table, species=resolution.species), notes


def _proteins_kept(panel: pd.DataFrame, *, keep_isotypes: bool) -> tuple[np.ndarray, list[str]]:
    """Return which rows of a panel [p] are proteins to learn from, bool [p], and lines that name the others."""
    kinds, kept = panel["kind"].to_numpy(), np.ones(len(panel), dtype=bool)
    notes = []
    for kind in ("bookkeeping", "hashtag", *(() if keep_isotypes else ("isotype",))):
        left_out = panel["name"][kinds == kind].tolist()
        kept &= kinds != kind
        if left_out:
            noun = _NOUNS[kind] if len(left_out) == 1 else f"{_NOUNS[kind]}s"
            notes.append(f"proteins: {len(left_out)} {noun} left out: {name_some(left_out, most=8)}")
    return kept, notes


def require_placed(resolution: Resolution) -> None:
    """Raise FeatureError if hardly any gene has a place in the genome of the species."""
    placed = resolution.table["chromosome"].notna()
    if placed.mean() < MIN_PLACED:
        raise FeatureError(
            f"only {placed.sum()} of {len(placed)} genes have a place in the {resolution.species} genome "
            f"({name_some(resolution.table['name'].tolist())}); check species and gene names"
        )


def match_features(cite: CiteSeq, features: Features) -> Match:
    """Match a model's features with those of an input, by name and then by the gene or antigen they resolve to.

    No column is used twice: features that share a name or an id are matched in order.

    Raises
    ------
    FeatureError
        Fewer than half of the model's genes (`MIN_MATCHED`) match, or the input is from another species.
    """
    genes = features.genes
    other = _unsupported_species(cite)
    if other is not None and genes["gene_id"].notna().any():
        raise FeatureError(
            f"the input's gene ids are from {other}, the model is for {features.species}; "
            "to match gene symbols anyway, remove var['gene_ids']"
        )
    names = cite.rna.var_names.to_series(index=range(cite.rna.n_vars))
    columns = fill(np.full(len(genes), -1), unrepeated(genes["name"]), unrepeated(names))
    if (columns >= 0).mean() < MIN_MATCHED:
        _require_same_species(cite, features)
    if (columns < 0).any():
        gene_ids = cite.rna.var.get("gene_ids")
        resolved = resolve_genes(names, gene_ids=gene_ids, species=features.species).table
        for kind in ("gene_id", "symbol", "name"):
            columns = fill(columns, genes[kind], resolved[kind])
    if (columns >= 0).mean() < MIN_MATCHED:
        raise FeatureError(_too_few(columns, genes, cite, features.species))
    n_matched = int((columns >= 0).sum())
    rest = "; the others count as not measured" if n_matched < len(genes) else ""
    notes = [f"genes: {n_matched} of the model's {len(genes)} matched{rest}"]

    proteins = features.proteins
    positions = np.full(len(proteins), -1)
    if cite.protein is not None and len(proteins):
        wanted, panel = list(proteins["name"]), list(cite.protein.var_names)
        positions = match_proteins(wanted, panel, species=features.species)
        notes.append(_protein_note(wanted, panel, positions))
    return Match(genes=columns, proteins=positions, notes=tuple(notes))


def _doubts_about_species(cite: CiteSeq, chosen: str) -> list[str]:
    """Return a warning if the genes look like those of another species than the chosen one.

    Case is ignored when symbols are matched, so that most human symbols match a mouse gene, at another place.
    """
    species = _likely_species(cite)
    if species in (chosen, None):
        return []
    some = name_some(list(cite.rna.var_names))
    return [f"warning: the genes look {species} ({some}), but species={chosen!r} was chosen; check species"]


def _likely_species(cite: CiteSeq) -> str | None:
    """Return the species that the genes look like; None if it is not supported or unclear."""
    try:
        return infer_species(cite.rna.var_names, cite.rna.var.get("gene_ids"))
    except FeatureError:
        return None


def _unsupported_species(cite: CiteSeq) -> str | None:
    return other_species(as_text(cite.rna.var.get("gene_ids", cite.rna.var_names)))


def _protein_note(wanted: Sequence[str], names: Sequence[str], columns: np.ndarray) -> str:
    renamed = renamed_proteins(wanted, names, columns)
    missing = [name for name, place in zip(wanted, columns, strict=True) if place < 0]
    note = f"proteins: {(columns >= 0).sum()} of the model's {len(wanted)} matched"
    note += f" ({name_some(renamed, most=8)})" if renamed else ""
    return note + (f"; not measured: {name_some(missing, most=8)}" if missing else "")


def _rows(resolved: pd.DataFrame, *, modality: str) -> pd.DataFrame:
    return resolved.assign(modality=modality)[COLUMNS].reset_index(drop=True)


def _scaled_moments(cite: CiteSeq) -> Moments:
    return add_up(scaled_moments(part.rna.X, cells_with_gene(part.rna)) for part in cite.blocks())


def _mean_counts(cite: CiteSeq) -> tuple[np.ndarray, np.ndarray]:
    """Return the mean count of each gene [g] and protein [p] over the cells in which it was measured."""
    rna = add_up(moments(part.rna.X, cells_with_gene(part.rna)) for part in cite.blocks())
    proteins = (part.protein for part in cite.blocks())
    empty = np.empty((0, 0))
    return rna.mean, add_up(moments(empty if protein is None else protein.X) for protein in proteins).mean


def _ordered(
    rows: pd.DataFrame, config: DataConfig, *, expression: np.ndarray | None, listed: Sequence[str]
) -> pd.DataFrame:
    # A list may have only genes (or only proteins); the other modality is then in genome order.
    kind = "genome" if config.order == "list" and not _is_listed(rows, listed).any() else config.order
    order = order_features(rows, kind, seed=config.order_seed, expression=expression, names=listed)
    return rows.iloc[order]


def _is_listed(rows: pd.DataFrame, listed: Sequence[str]) -> pd.Series:
    return rows["name"].isin(listed) | rows["symbol"].isin(listed)


def _read_names(path: str | None) -> list[str]:
    if path is None:
        raise FeatureError("data.order=list needs data.order_file, a text file with one name per line")
    try:
        lines = Path(path).read_text(encoding="utf-8-sig").splitlines()  # Windows writes a mark before the first name
    except OSError as error:
        raise InputFileError(
            f"{path}: cannot be read ({error.strerror}); use a text file with one name per line"
        ) from error
    except UnicodeDecodeError as error:
        raise InputFileError(f"{path}: is not a text file; use one name per line") from error
    return [line.strip() for line in lines if line.strip()]


def _require_same_species(cite: CiteSeq, features: Features) -> None:
    """Refuse the other species, most of whose symbols would match if their case were ignored."""
    species = _likely_species(cite)
    if species not in (features.species, None):  # if it is unclear, the number of matching genes decides
        raise FeatureError(
            f"the input's genes are {species} ({name_some(list(cite.rna.var_names))}), the model is for "
            f"{features.species}; use {features.species} data, or pretrain a model on {species} data"
        )


def _too_few(columns: np.ndarray, genes: pd.DataFrame, cite: CiteSeq, species: str) -> str:
    missing = genes["name"][columns < 0].tolist()
    return (
        f"only {int((columns >= 0).sum())} of the model's {len(genes)} genes are in the input (missing: "
        f"{name_some(missing)}; the input has {name_some(list(cite.rna.var_names))}); "
        f"the model needs {species} data with gene symbols or Ensembl ids"
    )
