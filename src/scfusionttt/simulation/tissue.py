"""The ground truth of a simulation: what all its cells have in common, derived from the settings and the seed."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from scfusionttt.errors import SettingError
from scfusionttt.simulation.blood import ISOTYPES, LINEAGE, PROTEINS, SurfaceProtein
from scfusionttt.simulation.genes import choose_genes

#: Mean number of adjacent genes that share a latent factor.
BLOCK_LENGTH = 10
#: Programmes that vary within every type: cell cycle, activation, stress.
N_STATES = 4

_BRANCH_SD = (0.9, 0.75, 0.65, 0.5)  # of log expression, trunk to leaf


@dataclass(frozen=True)
class Settings:
    """Arguments of `simulate`."""

    n_cells: int
    n_genes: int
    n_proteins: int
    n_types: int
    species: str
    seed: int
    n_isotypes: int
    n_batches: int
    batch_effect: float
    composition_shift: float
    batch_only: str
    rare_fraction: float
    depth: float
    coregulation: float
    protein_dropout: float

    def __post_init__(self) -> None:
        n_known = len(panel(self.species, len(PROTEINS)))
        for name, low, high in (
            ("n_types", 2, len(LINEAGE)),
            ("n_cells", 4 * self.n_types, np.inf),
            ("n_proteins", 1, n_known),
            ("n_genes", self.n_proteins, 15_000),
            ("n_isotypes", 0, len(ISOTYPES)),
            ("n_batches", 1, np.inf),
            ("batch_effect", 0, np.inf),
            ("composition_shift", 0, np.inf),
            ("rare_fraction", 0, 1 / self.n_types),
            ("depth", 0.01, np.inf),
            ("coregulation", 0, np.inf),
            ("protein_dropout", 0, 1),
        ):
            value = getattr(self, name)
            if not low <= value <= high:
                bound = f"at least {low}" if high == np.inf else f"between {low} and {high:g}"
                raise SettingError(f"{name} must be {bound} (got {value})")
        if self.n_batches == 1 and (self.batch_only or self.composition_shift):
            name = "batch_only" if self.batch_only else "composition_shift"
            raise SettingError(f"{name} needs at least 2 batches: set n_batches")
        types = list(LINEAGE)[: self.n_types]
        if self.batch_only not in ("", *types):
            raise SettingError(f"batch_only must be one of the types {', '.join(types)} (got {self.batch_only})")


@dataclass(frozen=True)
class Tissue:
    """The ground truth of a simulation: ``k`` types, ``g`` genes, ``p`` antibodies, ``b`` blocks, ``s`` states."""

    settings: Settings
    genes: pd.DataFrame
    proteins: list[SurfaceProtein]
    block_g: np.ndarray
    base_g: np.ndarray
    effect_kg: np.ndarray
    load_g: np.ndarray
    programme_sg: np.ndarray
    batch_bg: np.ndarray
    level_kp: np.ndarray
    background_p: np.ndarray
    amplitude_p: np.ndarray
    batch_bp: np.ndarray

    @property
    def types(self) -> list[str]:
        """Names of the cell types, in the order of axis ``k``."""
        return list(LINEAGE)[: self.settings.n_types]

    @property
    def nearest_k(self) -> np.ndarray:
        """The type with the most lineage in common with each (the first of equals), ``[k]``."""
        shared_kk = np.array([[len(set(LINEAGE[one]) & set(LINEAGE[two])) for two in self.types] for one in self.types])
        np.fill_diagonal(shared_kk, -1)
        return shared_kk.argmax(axis=1)

    @property
    def coding_p(self) -> np.ndarray:
        """Row of the coding gene of each protein (isotype controls follow and have none)."""
        return pd.Index(self.genes["symbol"]).get_indexer([one.gene(self.settings.species) for one in self.proteins])


def panel(species: str, n_proteins: int) -> list[SurfaceProtein]:
    """Return the first proteins with a coding gene in the species."""
    if species not in ("human", "mouse"):
        raise SettingError(f"species must be human or mouse (got {species})")
    return [protein for protein in PROTEINS if protein.gene(species)][:n_proteins]


def draw_tissue(settings: Settings) -> Tissue:
    """Draw what the cells of a simulation have in common."""
    rng = np.random.default_rng([settings.seed, 0])
    proteins = panel(settings.species, settings.n_proteins)
    coding = [one.gene(settings.species) for one in proteins]
    genes = choose_genes(settings.species, settings.n_genes, set(coding), rng)
    n_genes, n_antibodies = len(genes), len(proteins) + settings.n_isotypes
    block_g = (genes["opens"].to_numpy() | (rng.random(n_genes) < 1 / BLOCK_LENGTH)).cumsum() - 1
    base_g = rng.normal(0, 1.8, n_genes)
    effect_kg = _type_effects(settings, block_g, rng)

    types = list(LINEAGE)[: settings.n_types]
    level_kp = np.zeros((len(types), n_antibodies))
    level_kp[:, : len(proteins)] = [[protein.level(one) for protein in proteins] for one in types]
    for symbol, of_gene in pd.Series(range(len(proteins))).groupby(coding):
        row = np.flatnonzero(genes["symbol"] == symbol)
        base_g[row] = rng.normal(1.5, 0.5)  # a marker is detected where it is expressed, though sparsely
        effect_kg[:, row] = np.log(0.05 + level_kp[:, of_gene].max(axis=1, keepdims=True))

    batch_bg = settings.batch_effect * rng.standard_normal((settings.n_batches, n_genes))
    batch_bp = settings.batch_effect * rng.standard_normal((settings.n_batches, n_antibodies))
    batch_bg[0] = batch_bp[0] = 0
    sparse_sg = rng.standard_normal((N_STATES, n_genes)) * (rng.random((N_STATES, n_genes)) < 0.2)
    return Tissue(
        settings=settings,
        genes=genes,
        proteins=proteins,
        block_g=block_g,
        base_g=base_g.astype(np.float32),
        effect_kg=effect_kg.astype(np.float32),
        load_g=(settings.coregulation * rng.uniform(0.6, 1.4, n_genes)).astype(np.float32),
        programme_sg=(0.5 * sparse_sg).astype(np.float32),
        batch_bg=batch_bg.astype(np.float32),
        level_kp=level_kp,
        background_p=np.exp(rng.normal(2.7, 0.6, n_antibodies)),
        amplitude_p=np.exp(rng.normal(5.0, 0.8, n_antibodies)),
        batch_bp=batch_bp,
    )


def _type_effects(settings: Settings, block_g: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return the summed effects of each type's branches on blocks and on single genes, ``[k, g]``."""
    branches: dict[str, np.ndarray] = {}
    effect_kg = np.zeros((settings.n_types, len(block_g)))
    for k, (leaf, path) in enumerate(list(LINEAGE.items())[: settings.n_types]):
        for level, branch in enumerate((*path, leaf)):
            if branch not in branches:
                of_block = rng.standard_normal(block_g[-1] + 1) * (rng.random(block_g[-1] + 1) < 0.2)
                of_gene = rng.standard_normal(len(block_g)) * (rng.random(len(block_g)) < 0.1)
                branches[branch] = _BRANCH_SD[level] * (of_block[block_g] + of_gene)
            effect_kg[k] += branches[branch]
    return effect_kg
