"""Scores of representations, clusters and predicted cell types, computed from arrays and DataFrames."""

from scfusionttt.evaluation.classification import (
    class_table,
    classification_scores,
    confusion,
    expected_calibration_error,
    reliability,
)
from scfusionttt.evaluation.clustering import Clustering, cluster, cluster_graph, neighbours, umap
from scfusionttt.evaluation.evaluate import (
    Evaluation,
    evaluate_as_published,
    evaluate_clusters,
    evaluate_graph,
    evaluate_predictions,
    evaluate_representation,
)
from scfusionttt.evaluation.integration import integration_scores, own_batch, with_totals
from scfusionttt.evaluation.markers import top_features
from scfusionttt.evaluation.metrics import ten_metrics
from scfusionttt.evaluation.quality import (
    mean_correlation,
    neighbour_agreement,
    neighbour_correlation,
    probe_f1,
    r_squared,
    ridge_correlation,
)
from scfusionttt.evaluation.vocabulary import METRICS, PROTOCOLS, TEN_METRICS

__all__ = [
    "METRICS",
    "PROTOCOLS",
    "TEN_METRICS",
    "Clustering",
    "Evaluation",
    "class_table",
    "classification_scores",
    "cluster",
    "cluster_graph",
    "confusion",
    "evaluate_as_published",
    "evaluate_clusters",
    "evaluate_graph",
    "evaluate_predictions",
    "evaluate_representation",
    "expected_calibration_error",
    "integration_scores",
    "mean_correlation",
    "neighbour_agreement",
    "neighbour_correlation",
    "neighbours",
    "own_batch",
    "probe_f1",
    "r_squared",
    "reliability",
    "ridge_correlation",
    "ten_metrics",
    "top_features",
    "umap",
    "with_totals",
]
