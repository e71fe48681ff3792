"""The results of a model on cells, computed once for all sections of the report."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import sparse

from scfusionttt.data.cells import CiteSeq
from scfusionttt.data.features import Features, Match, match_features
from scfusionttt.data.preprocess import Preprocessing
from scfusionttt.evaluation import cluster_graph, neighbours, top_features, umap
from scfusionttt.evaluation.vocabulary import Protocol
from scfusionttt.labels import usable_labels
from scfusionttt.model.fusionttt import FusionTTT

#: Number of top genes and proteins listed for each cluster.
N_TOP_GENES, N_TOP_PROTEINS = 5, 3


@dataclass(frozen=True)
class Analysis:
    """Cells and the results of a model on them.

    Attributes
    ----------
    embedding, coords
        The embedding [n, l] and its UMAP [n, 2].
    clusters
        Leiden cluster of each cell, str [n]; with labels, as many clusters as classes.
    labels_key
        obs column with the labels; None without labels.
    truth
        Label of each cell [n], "" if unlabelled; None without labels.
    predictions
        The result of :meth:`scfusionttt.FusionTTT.predict`; None if the model has no classes.
    trained_on
        Which cells the model was trained on with their labels, bool [n]; None if that was not recorded.
    lognorm, log_ratios
        Log-normalised values of the model's genes [n, g] and centred log-ratios of its proteins [n, p].
    top_genes, top_proteins
        Names of the top features of each cluster.
    """

    cite: CiteSeq
    features: Features
    preprocessing: Preprocessing
    match: Match
    embedding: np.ndarray
    coords: np.ndarray
    clusters: np.ndarray
    labels_key: str | None
    truth: np.ndarray | None
    predictions: pd.DataFrame | None
    trained_on: np.ndarray | None
    lognorm: sparse.csr_matrix
    log_ratios: np.ndarray
    top_genes: dict[str, list[str]]
    top_proteins: dict[str, list[str]]

    @property
    def n_cells(self) -> int:
        """Number of cells."""
        return len(self.embedding)

    @property
    def scored(self) -> tuple[Protocol, np.ndarray]:
        """Protocol under which clusters and predictions can be scored, and the cells to score, bool [n]."""
        assert self.truth is not None
        known = self.truth != ""
        if self.predictions is None:
            return "unsupervised", known
        if self.trained_on is None or not (known & ~self.trained_on).any():
            return "paper", known
        if not self.trained_on.any():
            return "zero-shot", known
        return "held-out", known & ~self.trained_on


def analyse(model: FusionTTT, cite: CiteSeq, *, labels_key: str | None = None) -> Analysis:
    """Embed and cluster the cells, predict their types, and determine the top features of the clusters.

    Parameters
    ----------
    labels_key
        obs column with known classes.

    Raises
    ------
    LabelError
        The labels cannot be used.
    """
    truth, n_clusters = None, None
    if labels_key is not None:
        codes, classes = usable_labels(cite.obs, labels_key, learn=False)
        truth, n_clusters = np.array([*classes, ""], dtype=object)[codes], len(classes)
    embedding = model.embed(cite)  # raises an error if the model is not trained
    features, preprocessing = model.features, model.preprocessing
    match = match_features(cite, features)
    graph = neighbours(embedding)
    clusters = cluster_graph(graph.obsp["connectivities"], n_clusters, seed=model.config.seed).labels.astype(str)
    lognorm, log_ratios = preprocessing.log_normalized(cite, match), preprocessing.log_ratios(cite, match)
    genes, proteins = features.genes["name"].tolist(), features.proteins["name"].tolist()
    return Analysis(
        cite=cite,
        features=features,
        preprocessing=preprocessing,
        match=match,
        embedding=embedding,
        coords=umap(graph, seed=model.config.seed),
        clusters=clusters,
        labels_key=labels_key,
        truth=truth,
        predictions=model.predict(cite) if model.classes else None,
        trained_on=model.provenance.learned(cite.rna.obs_names)
        if model.classes
        else np.zeros(len(embedding), dtype=bool),
        lognorm=lognorm,
        log_ratios=log_ratios,
        top_genes=top_features(lognorm, genes, clusters, most=N_TOP_GENES),
        top_proteins=top_features(log_ratios, proteins, clusters, most=N_TOP_PROTEINS),
    )
