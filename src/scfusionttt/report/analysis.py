"""The results of a model on cells, computed once for all sections of the report."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import ArrayLike
from scipy import sparse

from scfusionttt.analysis.quality import quality
from scfusionttt.data.cells import CiteSeq
from scfusionttt.data.features import Features, Match, match_features
from scfusionttt.data.preprocess import Preprocessing, matched_gene_counts, present_genes
from scfusionttt.data.transforms import library_sizes, log_normalize
from scfusionttt.errors import InputDataError, require
from scfusionttt.evaluation import cluster_graph, neighbours, top_features, umap
from scfusionttt.evaluation.vocabulary import Protocol
from scfusionttt.inference import uses_proteins
from scfusionttt.labels import class_names, obs_column, translated, usable_labels
from scfusionttt.model.fusionttt import FusionTTT, embed_or_map
from scfusionttt.model.inputs import each_line_once
from scfusionttt.model.mapping import Mapped

#: Resolutions of the Leiden clusters; the first is the one that is described.
RESOLUTIONS = (0.5, 0.25, 1.0, 2.0)
#: Number of top genes and proteins listed for each cluster.
N_TOP_GENES, N_TOP_PROTEINS = 5, 3


@dataclass(frozen=True)
class Analysis:
    """Cells and the results of a model on them.

    Attributes
    ----------
    cite
        The cells.
    features, preprocessing, match
        The features and constants of the model, and the columns of these features in `cite`.
    proteins_read
        Columns of the proteins in `cite` that the model reads; none after transfer.
    classes
        Classes of the model.
    embedding, graph
        The embedding [n, l] and, in obsp, its neighbour graph.
    coords
        Coordinates of the map [n, 2]: the UMAP of the embedding, unless others were given.
    own_coords
        Whether the coordinates were given.
    clusterings
        Leiden cluster of each cell, str [n], by resolution.
    labels_key
        obs column with the labels; None without labels.
    truth
        Label of each cell [n], "" if unlabelled, in the model's names if a label map was given; None without labels.
    predictions
        The result of :meth:`scfusionttt.FusionTTT.predict`; None if the model has no classes.
    trained_on
        Which cells the model was trained on with their labels, bool [n]; None if that was not recorded.
    batches
        Batch of each cell, str [n], by obs column.
    mapped
        The result of :meth:`scfusionttt.FusionTTT.map`, if the cells have batches that the model was not trained on, or
        lie apart from all that a model without batches was trained on; else None.
    quality
        The result of :func:`scfusionttt.quality`, within the batches of the first of these columns.
    lognorm, log_ratios
        Log-normalised values of the model's genes [n, g], by the counts of all genes as in scanpy (the network reads
        shares of the model's genes), and centred log-ratios of its proteins [n, p].
    top_genes, top_proteins
        Names of the top features of each cluster.
    """

    cite: CiteSeq
    features: Features
    preprocessing: Preprocessing
    match: Match
    proteins_read: np.ndarray
    classes: list[str]
    embedding: np.ndarray
    graph: AnnData
    coords: np.ndarray
    own_coords: bool
    clusterings: dict[float, np.ndarray]
    labels_key: str | None
    truth: np.ndarray | None
    predictions: pd.DataFrame | None
    trained_on: np.ndarray | None
    batches: dict[str, np.ndarray]
    mapped: Mapped | None
    quality: pd.DataFrame
    lognorm: sparse.csr_matrix
    log_ratios: np.ndarray
    top_genes: dict[str, list[str]]
    top_proteins: dict[str, list[str]]

    @property
    def n_cells(self) -> int:
        """Number of cells."""
        return len(self.embedding)

    @property
    def resolution(self) -> float:
        """Resolution of the clusters that are described."""
        return next(iter(self.clusterings))

    @property
    def clusters(self) -> np.ndarray:
        """The clusters that are described, str [n]."""
        return self.clusterings[self.resolution]

    @property
    def types(self) -> tuple[str, np.ndarray]:
        """Cell type of each cell, "" if not known, and what it is: the label, else the prediction, else the cluster."""
        if self.truth is not None:
            return f"label ({self.labels_key})", self.truth
        if self.predictions is not None:
            return "predicted type", self.predictions["label"].astype(str).to_numpy(dtype=object)
        return "cluster", self.clusters.astype(object)

    @property
    def labels_match_classes(self) -> bool:
        """Whether predictions can be compared with labels name by name: the model knows most labelled cells' labels."""
        if self.truth is None or self.predictions is None:
            return False
        known = self.truth[self.truth != ""]
        return bool(np.isin(known, self.classes).mean() >= 0.5)

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


def analyze(
    model: FusionTTT,
    cite: CiteSeq,
    *,
    labels_key: str | None = None,
    label_map: Mapping[str, str] | None = None,
    batch_key: str | Sequence[str] | None = None,
    coords: ArrayLike | None = None,
    resolutions: Sequence[float] = RESOLUTIONS,
) -> Analysis:
    """Embed (or map) and cluster the cells, predict their types, and determine the top features of the clusters.

    Parameters are those of :func:`scfusionttt.report.write_report`, as are the errors.
    """
    truth = _labels(cite, labels_key, label_map, model.classes)
    keys = _batch_keys(model, cite, batch_key)
    batches = {key: class_names(obs_column(cite.obs, key, role="batches")) for key in keys}
    require(
        len(resolutions) > 0 and all(isinstance(one, int | float) and 0 < one < np.inf for one in resolutions),
        f"resolutions must be positive numbers (got {list(resolutions)}), e.g. 0.5",
    )
    given = None if coords is None else _coordinates(coords, cite.rna.n_obs)
    with each_line_once():
        embedding, mapped = embed_or_map(model, cite)
        predictions = None if not model.classes else model.predict(cite) if mapped is None else mapped.cells
    graph, seed = neighbours(embedding), model.config.seed
    weights = graph.obsp["connectivities"]
    clusterings = {one: cluster_graph(weights, resolution=one, seed=seed).labels.astype(str) for one in resolutions}
    clusters = clusterings[resolutions[0]]

    features = model.features
    match = match_features(cite, features)
    lognorm = log_normalize(
        matched_gene_counts(cite, match),
        target_sum=model.preprocessing.target_sum,
        library_size=library_sizes(cite.rna.X),
    )
    read_with = model if mapped is None else mapped.model  # which knows how the antibodies stain in new batches
    log_ratios = read_with.preprocessing.log_ratios(cite, match, read_with.cohort.codes(cite.obs))
    genes, proteins = features.genes["name"].tolist(), features.proteins["name"].tolist()
    learned = model.provenance.learned(cite.rna.obs_names) if model.classes else np.zeros(len(embedding), dtype=bool)
    return Analysis(
        cite=cite,
        features=features,
        preprocessing=model.preprocessing,
        match=match,
        proteins_read=match.proteins[match.proteins >= 0] if uses_proteins(model.network) else np.empty(0, dtype=int),
        classes=model.classes,
        embedding=embedding,
        graph=graph,
        coords=umap(graph, seed=seed) if given is None else given,
        own_coords=given is not None,
        clusterings=clusterings,
        labels_key=labels_key,
        truth=truth,
        predictions=predictions,
        trained_on=learned,
        batches=batches,
        mapped=mapped,
        quality=quality(cite, batch_key=next(iter(keys), None), species=features.species),
        lognorm=lognorm,
        log_ratios=log_ratios,
        top_genes=top_features(lognorm, genes, clusters, panels=present_genes(cite, match), most=N_TOP_GENES),
        top_proteins=top_features(log_ratios, proteins, clusters, most=N_TOP_PROTEINS),
    )


def _coordinates(coords: ArrayLike, n_cells: int) -> np.ndarray:
    """Return the first two columns of coordinates of the map, [n, 2]."""
    given = np.asarray(coords, dtype=float)
    if given.ndim != 2 or len(given) != n_cells or given.shape[1] < 2:
        raise InputDataError(f"coords has the shape {given.shape}; give two numbers for each of {n_cells} cells")
    return given[:, :2]


def _labels(
    cite: CiteSeq, labels_key: str | None, label_map: Mapping[str, str] | None, classes: Sequence[str]
) -> np.ndarray | None:
    require(label_map is None or labels_key is not None, "label_map needs labels_key, the column that it translates")
    if labels_key is None:
        return None
    codes, names = usable_labels(cite.obs, labels_key, learn=False)
    truth = np.array([*names, ""], dtype=object)[codes]
    return truth if label_map is None else translated(truth, label_map, classes)


def _batch_keys(model: FusionTTT, cite: CiteSeq, batch_key: str | Sequence[str] | None) -> list[str]:
    """Return the obs columns of batches: the given ones, else those of the model that the cells have."""
    if batch_key is None:
        return [key for key in model.batch_keys if key in cite.obs]
    return [batch_key] if isinstance(batch_key, str) else list(batch_key)
