"""scVI, totalVI, scANVI and totalANVI (scvi-tools) with their documented defaults; imported when used."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from scipy import sparse

from scfusionttt.comparison.cells import Cells

_UNLABELLED = "unlabelled"


def scvi(cells: Cells, seed: int) -> np.ndarray:
    """Return scVI's representation of the RNA (Lopez et al. 2018)."""
    with _library(seed) as library:
        adata = _counts(cells)
        library.model.SCVI.setup_anndata(adata)
        return _trained(library.model.SCVI(adata)).get_latent_representation()


def totalvi(cells: Cells, seed: int) -> np.ndarray:
    """Return totalVI's representation of both modalities (Gayoso et al. 2021), with the batches if there are any.

    Cells without proteins are batches of their own, whose proteins totalVI takes for missing since all are zero.
    """
    adata, setup = _counts(cells, protein=True), {}
    measured = np.isfinite(cells.protein_counts)
    if cells.batch_key is not None or not measured.all():
        panels = np.unique(measured, axis=0, return_inverse=True)[1]
        adata.obs["batch"] = pd.Categorical([f"{batch} {panel}" for batch, panel in zip(cells.batches, panels)])
        setup = {"batch_key": "batch"}
    return trained_totalvi(adata, seed, **setup).get_latent_representation()


def trained_totalvi(adata: AnnData, seed: int, **setup: str) -> Any:
    """Return the totalVI model of raw counts of genes in X and of proteins in ``obsm["protein"]``."""
    with _library(seed) as library:
        library.model.TOTALVI.setup_anndata(adata, protein_expression_obsm_key="protein", **setup)
        return _trained(library.model.TOTALVI(adata))


def expected_proteins(
    genes: sparse.csr_matrix, protein: pd.DataFrame, new: sparse.csr_matrix, seed: int
) -> pd.DataFrame:
    """Return the counts of proteins [m + n, p] that totalVI expects of the cells it learns from, and of new ones.

    Raw counts: `genes` [m, g] and `protein` [m, p] of the former, and `new` [n, g], of which it sees RNA alone.
    """
    adata = AnnData(sparse.vstack([genes, new], format="csr"))
    adata.obs["measured"] = np.repeat(["yes", "no"], [genes.shape[0], new.shape[0]])
    # zeros mark a batch without proteins in totalVI
    padded = protein.reset_index(drop=True).reindex(range(adata.n_obs), fill_value=0)
    adata.obsm["protein"] = padded.set_index(adata.obs_names)
    model = trained_totalvi(adata, seed, batch_key="measured")
    return model.get_normalized_expression(n_samples=10, return_mean=True, transform_batch="yes")[1]


def scanvi_surgery(
    genes: sparse.csr_matrix,
    labels: np.ndarray,
    new: sparse.csr_matrix,
    seed: int,
    *,
    batches: "np.ndarray | str" = "reference",
) -> np.ndarray:
    """Return labels of the cells `new`: scANVI learns a reference, to which they are added by surgery on its weights.

    Raw counts [m, g] and [n, g], the new ones of one batch; labels [m] are empty where unknown, batches [m] are names
    that differ from "query". With the settings of scvi-tools' tutorial of scArches (Lotfollahi et al. 2022).
    """
    with _library(seed) as library:
        reference, query = AnnData(genes.copy()), AnnData(new.copy())
        reference.obs["study"], query.obs["study"] = batches, "query"
        reference.obs["label"] = np.where(labels == "", _UNLABELLED, labels)
        query.obs["label"] = _UNLABELLED
        library.model.SCVI.setup_anndata(reference, batch_key="study", labels_key="label")
        network = {"use_layer_norm": "both", "use_batch_norm": "none", "encode_covariates": True, "dropout_rate": 0.2}
        first = _trained(library.model.SCVI(reference, n_layers=2, **network))
        learned = _trained(library.model.SCANVI.from_scvi_model(first, unlabeled_category=_UNLABELLED))
        mapped = library.model.SCANVI.load_query_data(query, learned)
        mapped.train(max_epochs=100, plan_kwargs={"weight_decay": 0.0}, enable_progress_bar=False)
        return mapped.predict().astype(str)


def scanvi(cells: Cells, train: np.ndarray, seed: int) -> pd.DataFrame:
    """Return the probabilities of scANVI on RNA (Xu et al. 2021), started from scVI."""
    with _library(seed) as library:
        adata = _counts(cells, train=train)
        library.model.SCVI.setup_anndata(adata, labels_key="label")
        first = _trained(library.model.SCVI(adata))
        model = library.model.SCANVI.from_scvi_model(first, unlabeled_category=_UNLABELLED)
        return _trained(model).predict(soft=True)


def totalanvi(cells: Cells, train: np.ndarray, seed: int) -> pd.DataFrame:
    """Return the probabilities of totalANVI on both modalities, trained from scratch."""
    with _library(seed) as library:
        adata = _counts(cells, protein=True, train=train)
        keys = {"labels_key": "label", "unlabeled_category": _UNLABELLED, "protein_expression_obsm_key": "protein"}
        totalanvi = library.external.TOTALANVI
        totalanvi.setup_anndata(adata, **keys)
        return _trained(totalanvi(adata)).predict(soft=True)


@contextmanager
def _library(seed: int) -> Iterator[Any]:
    """Provide scvi-tools with its seed set and its warnings silenced."""
    import scvi as library

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        library.settings.seed = seed
        yield library


def _trained(model: Any) -> Any:
    model.train(enable_progress_bar=False)
    return model


def _counts(cells: Cells, *, protein: bool = False, train: np.ndarray | None = None) -> AnnData:
    """Return raw counts of the variable genes, optionally with proteins and with the labels of the rows `train`."""
    adata = AnnData(cells.gene_counts.copy(), obs=pd.DataFrame(index=cells.cite.rna.obs_names))
    if protein:
        assert cells.cite.protein is not None
        adata.obsm["protein"] = pd.DataFrame(
            np.nan_to_num(cells.protein_counts), index=adata.obs_names, columns=cells.cite.protein.var_names
        )
    if train is not None:
        shown = np.full(adata.n_obs, _UNLABELLED, dtype=object)
        shown[train] = cells.labels[train]
        adata.obs["label"] = pd.Categorical(shown)
    return adata
