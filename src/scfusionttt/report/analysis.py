"""What a model makes of cells, computed once for all sections of the report."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import sparse

from scfusionttt.data.cells import CiteSeq
from scfusionttt.data.features import Features, Match, match_features
from scfusionttt.data.preprocess import Preprocessing
from scfusionttt.evaluation import cluster_graph, neighbours, top_features, umap
from scfusionttt.labels import usable_labels
from scfusionttt.model.fusionttt import FusionTTT

#: The best genes and proteins listed for each cluster.
MOST_GENES, MOST_PROTEINS = 5, 3


@dataclass(frozen=True)
class Analysis:
    """Cells and what a model makes of them.

    Attributes
    ----------
    z, coords
        The fused representation [n, l], and its UMAP [n, 2].
    clusters
        Leiden cluster of each cell, [n] text; as many as there are classes where labels are given.
    truth
        Known class of each cell, [n], "" where not labelled; None without labels.
    predictions
        As :meth:`scfusionttt.FusionTTT.predict` gives them; None where the model knows no classes.
    learned
        Which cells taught the model their labels, [n] bool; None where that is not known.
    lognorm, log_ratios
        Values of the model's genes [n, g] and proteins [n, p].
    top_genes, top_proteins
        What sets each cluster apart.
    """

    cite: CiteSeq
    features: Features
    preprocessing: Preprocessing
    match: Match
    z: np.ndarray
    coords: np.ndarray
    clusters: np.ndarray
    labels: str | None
    truth: np.ndarray | None
    predictions: pd.DataFrame | None
    learned: np.ndarray | None
    lognorm: sparse.csr_matrix
    log_ratios: np.ndarray
    top_genes: dict[str, list[str]]
    top_proteins: dict[str, list[str]]

    @property
    def n_cells(self) -> int:
        """Number of cells."""
        return len(self.z)

    @property
    def scored(self) -> tuple[str, np.ndarray]:
        """Return by which protocol, and on which cells [n] bool, this model's classes may be scored."""
        assert self.truth is not None
        known = self.truth != ""
        if self.learned is None or not (known & ~self.learned).any():
            return "paper", known
        if not self.learned.any():
            return "zero-shot", known
        return "held-out", known & ~self.learned


def analyse(model: FusionTTT, cite: CiteSeq, *, labels: str | None = None) -> Analysis:
    """Embed, map, cluster and name the cells, and find what sets the clusters apart.

    Parameters
    ----------
    labels
        obs column with known classes.

    Raises
    ------
    LabelError
        When the labels cannot be used.
    """
    truth, n_clusters = None, None
    if labels is not None:
        codes, classes = usable_labels(cite.obs, labels, learn=False)
        truth, n_clusters = np.array([*classes, ""], dtype=object)[codes], len(classes)
    z = model.embed(cite)  # refuses a model that is not trained
    features, preprocessing = model.features, model.preprocessing
    match = match_features(cite, features)
    graph = neighbours(z)
    clusters = cluster_graph(graph.obsp["connectivities"], n_clusters, seed=model.config.seed).labels.astype(str)
    lognorm, log_ratios = preprocessing.log_normalized(cite, match), preprocessing.log_ratios(cite, match)
    genes, proteins = features.genes["name"].tolist(), features.proteins["name"].tolist()
    return Analysis(
        cite=cite,
        features=features,
        preprocessing=preprocessing,
        match=match,
        z=z,
        coords=umap(graph, seed=model.config.seed),
        clusters=clusters,
        labels=labels,
        truth=truth,
        predictions=model.predict(cite) if model.classes else None,
        learned=model.provenance.learned(cite.rna.obs_names) if model.classes else np.zeros(len(z), dtype=bool),
        lognorm=lognorm,
        log_ratios=log_ratios,
        top_genes=top_features(lognorm, genes, clusters, most=MOST_GENES),
        top_proteins=top_features(log_ratios, proteins, clusters, most=MOST_PROTEINS),
    )
