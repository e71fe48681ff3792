"""Simulate CITE-seq of blood with real gene and protein names and known ground truth.

Counts of gene g in cell n of type k, with library size L_n, are negative binomial around
``mu_ng = L_n * softmax_g(base_g + effect_ng + load_g * factor_n,block(g) + state_n . programme_g + batch_g)``.

* Types form a lineage tree in which every branch adds its own effects, so types that separate late are similar. Each
  cell is shifted towards the type nearest to its own, a few almost half-way, so that no method can be perfect.
* Genes come in neighbourhoods of the real genome, cut into blocks whose length is geometric with mean `BLOCK_LENGTH`.
  A block has one latent factor per cell, so two genes d apart are co-regulated with probability
  ``(1 - 1 / BLOCK_LENGTH) ** d``: a correlation length of about ten genes, cut at the ends of chromosomes.
* A protein depends on the level of its type and the block of its coding gene, plus its background and the ambient
  antibody of the cell; it drops out at random. Isotype controls have background only.
"""

from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from anndata import AnnData
from scipy import sparse

from scfusionttt.errors import InputDataError, SettingError
from scfusionttt.io.quiet_warnings import quiet
from scfusionttt.simulation.blood import ISOTYPES
from scfusionttt.simulation.tissue import N_STATES, Settings, Tissue, draw_tissue

if TYPE_CHECKING:
    from mudata import MuData

#: uns: the settings of a simulation, from which its ground truth can be recomputed.
SIMULATION = "simulation"

_DISPERSION = 4.0  # shape of the gamma in the negative binomial of RNA
_CHUNK = 1024  # cells drawn at a time; changing it changes the counts of a seed


def simulate(
    n_cells: int = 1000,
    n_genes: int = 2000,
    n_proteins: int = 20,
    n_types: int = 6,
    *,
    species: str = "human",
    seed: int = 0,
    n_isotypes: int = 0,
    n_batches: int = 1,
    batch_effect: float = 0.3,
    composition_shift: float = 0.0,
    batch_only: str = "",
    rare_fraction: float = 0.03,
    depth: float = 0.2,
    coregulation: float = 0.8,
    protein_dropout: float = 0.02,
) -> "MuData":
    """Simulate CITE-seq of blood cells; the same arguments give the same counts.

    Parameters
    ----------
    n_cells, n_genes, n_proteins, n_types
        Sizes. Genes are real ones in genome order, those that code for the proteins among them; proteins and types are
        the first of :data:`scfusionttt.simulation.blood.PROTEINS` and :data:`~scfusionttt.simulation.blood.LINEAGE`.
    species
        "human" or "mouse".
    seed
        Draws the types, the genes and the counts.
    n_isotypes
        Isotype controls (``IgG1_control``, ...) added to the panel.
    n_batches
        Batches (``obs["batch"]`` if more than one), of about equal size.
    batch_effect
        Standard deviation of a batch's shift of every gene, and of the signal of every protein, natural log. The
        background of proteins, which is all that isotype controls have, is the same in all batches.
    composition_shift
        Standard deviation of the log odds of a type in a batch; 0: all batches have the same composition.
    batch_only
        A type that occurs in the last batch alone; empty: none.
    rare_fraction
        Fraction of cells of the last type; the others have similar sizes.
    depth
        Median library size per gene; 0.2 leaves about 90 % zeros.
    coregulation
        Standard deviation of the log expression of genes due to the factor of their block.
    protein_dropout
        Probability that a cell has only the background of a protein.

    Returns
    -------
    MuData
        ``rna`` (X: counts, CSR float32; var: gene_ids, chromosome, start, end, block; varm["type_effect"]: true log
        expression by type relative to the base), ``prot`` (X: counts, dense float32; var: gene, isotype; varm["level"]:
        true level by type, 0..1), ``obs["cell_type"]`` and ``uns["simulation"]`` with the arguments.

    Raises
    ------
    SettingError
        An argument is out of range.
    """
    settings = Settings(
        n_cells=n_cells,
        n_genes=n_genes,
        n_proteins=n_proteins,
        n_types=n_types,
        species=species,
        seed=seed,
        n_isotypes=n_isotypes,
        n_batches=n_batches,
        batch_effect=batch_effect,
        composition_shift=composition_shift,
        batch_only=batch_only,
        rare_fraction=rare_fraction,
        depth=depth,
        coregulation=coregulation,
        protein_dropout=protein_dropout,
    )
    tissue = draw_tissue(settings)
    rng = np.random.default_rng([settings.seed, 1])
    types = _draw_types(settings, n_cells, rng)
    batches = _draw_batches(tissue, types, rng)
    rna, protein = _draw_cells(tissue, types, batches, rng)
    return _as_mudata(tissue, types, batches, rna, protein)


def simulate_query(reference: "MuData", n_cells: int = 500, *, seed: int = 1, shift: float = 0.5) -> AnnData:
    """Simulate cells of the same types as the reference, with RNA only, from another platform.

    Parameters
    ----------
    reference
        Result of `simulate`; only ``uns["simulation"]`` and the gene names are used.
    n_cells
        Number of cells, at least four per type.
    seed
        Draws the cells and the effect of the platform.
    shift
        Strength of the platform effect: the depth is multiplied by ``exp(-shift)``, and every gene by a log-normal
        factor of standard deviation ``shift`` (natural log). 0 is the same platform.

    Returns
    -------
    AnnData
        X: counts, CSR float32, the reference's genes; ``obs["cell_type"]``.

    Raises
    ------
    InputDataError
        The reference is not a result of `simulate`, or its genes were renamed.
    SettingError
        There are too few cells, or `shift` is below 0.
    """
    settings = _settings_of(reference)
    tissue = draw_tissue(settings)
    genes = reference["rna"].var_names
    lost = genes.difference(pd.Index(tissue.genes["symbol"]))
    if len(lost):
        raise InputDataError(f"{len(lost)} genes of the reference (such as {lost[0]}) are not among the simulated ones")
    if n_cells < 4 * settings.n_types or not shift >= 0:
        raise SettingError(f"a query needs at least {4 * settings.n_types} cells and a shift of 0 or more")
    rng = np.random.default_rng([settings.seed, 2, seed])
    types = _draw_types(settings, n_cells, rng)
    platform_g = (shift * rng.standard_normal(len(tissue.genes))).astype(np.float32)
    rna, _ = _draw_cells(tissue, types, np.zeros(n_cells, dtype=int), rng, platform_g=platform_g, depth=np.exp(-shift))
    query = _rna(tissue, rna, [f"query-{n:06d}" for n in range(n_cells)])
    query.obs["cell_type"] = _names(tissue, types)
    return query[:, genes].copy()


def _draw_types(settings: Settings, n_cells: int, rng: np.random.Generator) -> np.ndarray:
    """Return the type of every cell, ``[n]``; every type has enough cells to be in both parts of a split."""
    least = min(10, n_cells // (2 * settings.n_types))
    share = rng.dirichlet(np.full(settings.n_types - 1, 20.0)) * (1 - settings.rare_fraction)
    spare = rng.multinomial(n_cells - least * settings.n_types, [*share, settings.rare_fraction])
    return rng.permutation(np.repeat(np.arange(settings.n_types), spare + least))


def _draw_batches(tissue: Tissue, types: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return the batch of every cell, ``[n]``."""
    settings = tissue.settings
    batches = rng.permutation(np.arange(len(types)) % settings.n_batches)
    if settings.composition_shift:
        own = np.random.default_rng([settings.seed, 3])  # other draws stay as they are
        odds_kb = np.exp(settings.composition_shift * own.standard_normal((settings.n_types, settings.n_batches)))
        reached_kb = np.cumsum(odds_kb / odds_kb.sum(axis=1, keepdims=True), axis=1)
        batches = (own.random((len(types), 1)) > reached_kb[types, :-1]).sum(axis=1)
    if settings.batch_only:
        batches[types == tissue.types.index(settings.batch_only)] = settings.n_batches - 1
    return batches


def _draw_cells(
    tissue: Tissue,
    types: np.ndarray,
    batches: np.ndarray,
    rng: np.random.Generator,
    *,
    platform_g: np.ndarray | float = 0.0,
    depth: float = 1.0,
) -> tuple[sparse.csr_matrix, np.ndarray]:
    """Return counts of RNA ``[n, g]`` and of antibodies ``[n, p]``, in chunks of cells."""
    n_genes, n_blocks = len(tissue.genes), tissue.block_g[-1] + 1
    rna, protein = [], []
    for start in range(0, len(types), _CHUNK):
        k, b = types[start : start + _CHUNK], batches[start : start + _CHUNK]
        factor_nb = rng.standard_normal((len(k), n_blocks), dtype=np.float32)
        state_ns = rng.standard_normal((len(k), N_STATES), dtype=np.float32)
        size_n = rng.normal(0, 0.4, len(k))
        identity_nk = _draw_identity(tissue, k, rng)
        mu_ng = identity_nk @ tissue.effect_kg + tissue.batch_bg[b] + (tissue.base_g + platform_g)
        mu_ng += tissue.load_g * factor_nb[:, tissue.block_g] + state_ns @ tissue.programme_sg
        np.exp(mu_ng, out=mu_ng)
        library_n = depth * tissue.settings.depth * n_genes * np.exp(size_n)
        mu_ng *= (library_n / mu_ng.sum(axis=1))[:, None].astype(np.float32)
        mu_ng *= rng.standard_gamma(_DISPERSION, mu_ng.shape, dtype=np.float32) / np.float32(_DISPERSION)
        rna.append(sparse.csr_matrix(rng.poisson(mu_ng).astype(np.float32)))
        protein.append(_draw_proteins(tissue, identity_nk, b, factor_nb, size_n, rng))
    return sparse.vstack(rna, format="csr"), np.concatenate(protein)


def _draw_identity(tissue: Tissue, k: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return the weight of every type in each cell, ``[n, k]``: its own, and less than half for the nearest type."""
    towards_n = 0.5 * rng.beta(0.6, 1.8, len(k))
    identity_nk = np.zeros((len(k), len(tissue.types)), dtype=np.float32)
    identity_nk[np.arange(len(k)), k] = 1 - towards_n
    identity_nk[np.arange(len(k)), tissue.nearest_k[k]] = towards_n
    return identity_nk


def _draw_proteins(
    tissue: Tissue,
    identity_nk: np.ndarray,
    b: np.ndarray,
    factor_nb: np.ndarray,
    size_n: np.ndarray,
    rng: np.random.Generator,
) -> np.ndarray:
    """Return antibody counts ``[n, p]``: background plus the signal of the type, times the ambient of the cell."""
    shape = (len(b), len(tissue.background_p))
    log_signal = rng.normal(0, 0.7, shape)
    log_signal[:, : len(tissue.proteins)] += 0.3 * factor_nb[:, tissue.block_g[tissue.coding_p]]
    log_signal += tissue.batch_bp[b]
    shown = rng.random(shape) >= tissue.settings.protein_dropout
    signal = tissue.amplitude_p * (identity_nk @ tissue.level_kp) * np.exp(log_signal) * shown
    ambient_n = np.exp(0.5 * size_n + rng.normal(0, 0.3, len(b)))[:, None]
    mean = (tissue.background_p * np.exp(rng.normal(0, 0.4, shape)) + signal) * ambient_n
    return rng.poisson(mean).astype(np.float32)


def _as_mudata(
    tissue: Tissue, types: np.ndarray, batches: np.ndarray, rna: sparse.csr_matrix, protein: np.ndarray
) -> "MuData":
    from mudata import MuData

    settings = tissue.settings
    cells = [f"cell-{n:06d}" for n in range(len(types))]
    isotypes = ISOTYPES[: settings.n_isotypes]
    var = pd.DataFrame(
        {
            "gene": [one.gene(settings.species) for one in tissue.proteins] + [""] * len(isotypes),
            "isotype": [False] * len(tissue.proteins) + [True] * len(isotypes),
        },
        index=[*(one.name for one in tissue.proteins), *isotypes],
    )
    antibodies = AnnData(protein, obs=pd.DataFrame(index=cells), var=var)
    antibodies.varm["level"] = pd.DataFrame(tissue.level_kp.T, index=var.index, columns=tissue.types)
    with quiet():  # mudata warns about columns that are removed below
        mdata = MuData({"rna": _rna(tissue, rna, cells), "prot": antibodies})
    mdata.var = mdata.var[[]]
    mdata.obs["cell_type"] = _names(tissue, types)
    if settings.n_batches > 1:
        mdata.obs["batch"] = pd.Categorical([f"batch {one + 1}" for one in batches])
    mdata.uns[SIMULATION] = asdict(settings)
    return mdata


def _rna(tissue: Tissue, counts: sparse.csr_matrix, cells: list[str]) -> AnnData:
    var = tissue.genes.set_index("symbol")[["gene_id", "chromosome", "start", "end"]]
    var = var.rename(columns={"gene_id": "gene_ids"}).rename_axis(None).assign(block=tissue.block_g)
    rna = AnnData(counts, obs=pd.DataFrame(index=cells), var=var)
    rna.varm["type_effect"] = pd.DataFrame(tissue.effect_kg.T, index=var.index, columns=tissue.types)
    return rna


def _names(tissue: Tissue, types: np.ndarray) -> pd.Categorical:
    return pd.Categorical(np.array(tissue.types)[types], categories=sorted(tissue.types))


def _settings_of(reference: "MuData") -> Settings:
    stored: Mapping[str, Any] = reference.uns.get(SIMULATION, {})
    names = {field.name: field.type for field in fields(Settings)}
    if set(stored) != set(names):
        raise InputDataError(f"the reference has no uns[{SIMULATION!r}] of this version; create it with simulate()")
    return Settings(**{name: kind(stored[name]) for name, kind in names.items()})  # type: ignore[operator, misc]
