"""The names of protocols and metrics, and what they mean."""

from dataclasses import dataclass
from typing import Literal

Protocol = Literal["unsupervised", "held-out", "zero-shot", "imputation", "ablation", "paper", "count-splitting"]

#: How scores were obtained; scores of different protocols are never shown in one table.
PROTOCOLS: dict[str, str] = {
    "unsupervised": "no labels were used in training",
    "held-out": "scored on cells whose labels were not used in training",
    "zero-shot": "no labels of this data set were used in training",
    "imputation": "proteins of cells of a batch or study that the method never saw, from their RNA",
    "ablation": "pretrained without labels on three quarters of the cells; all but the clusters scored on the others",
    "count-splitting": "no labels: computed from one half of each cell's counts and scored on the other half",
    "paper": "as published: cells whose labels were trained on are scored, too, with geometric metrics on the UMAP",
}


@dataclass(frozen=True)
class Metric:
    """A metric as tables show it.

    Attributes
    ----------
    label
        Column head.
    description
        What is measured, with its unit or range unless that is 0 to 1.
    lower_is_better
        Whether a low value is good; None if neither is.
    """

    label: str
    description: str
    lower_is_better: bool | None = False

    @property
    def heading(self) -> str:
        """The label with an arrow towards better values."""
        return self.label if self.lower_is_better is None else f"{self.label} {'↓' if self.lower_is_better else '↑'}"


#: The ten metrics of the paper, in its order.
TEN_METRICS = ("ARI", "NMI", "FMI", "ASW", "AMI", "JI", "SC", "CHI", "F", "DBI")

#: Every metric by its key in :class:`~scfusionttt.evaluation.Evaluation` and in the rows of a benchmark.
METRICS = {
    "ARI": Metric("ARI", "adjusted Rand index"),
    "NMI": Metric("NMI", "normalised mutual information"),
    "AMI": Metric("AMI", "adjusted mutual information"),
    "FMI": Metric("FMI", "Fowlkes-Mallows index"),
    "JI": Metric("JI", "Jaccard index of pairs of cells"),
    "F": Metric("F", "F-measure of pairs of cells"),
    "ASW": Metric("ASW", "average silhouette width of the labels, rescaled to 0 to 1"),
    "SC": Metric("SC", "silhouette coefficient of the clusters, -1 to 1"),
    "CHI": Metric("CHI", "Calinski-Harabasz index, 0 upwards"),
    "DBI": Metric("DBI", "Davies-Bouldin index, 0 upwards", lower_is_better=True),
    "accuracy": Metric("accuracy", "fraction of cells predicted correctly"),
    "balanced_accuracy": Metric("balanced accuracy", "mean recall over classes"),
    "macro_f1": Metric("macro F1", "mean F1 over classes"),
    "weighted_f1": Metric("weighted F1", "mean F1 over classes, weighted by their numbers of cells"),
    "ece": Metric("ECE", "expected calibration error", lower_is_better=True),
    "ARI_res1": Metric("ARI, resolution 1", "of Leiden clusters of resolution 1, whatever their number"),
    "NMI_res1": Metric("NMI, resolution 1", "the same"),
    "clusters_res1": Metric("clusters, resolution 1", "their number, 1 upwards", lower_is_better=None),
    "kNN": Metric("kNN", "fraction of cells whose neighbours vote for their label"),
    "probe_f1": Metric(
        "F1, 5 % of labels", "macro F1 of logistic regression that learns from 5 % of the labels, on the other cells"
    ),
    "gene_r": Metric(
        "gene r",
        "mean correlation of genes with their prediction by ridge regression, held-out cells, of the counts that the "
        "representation was learned from: more components also keep more of their noise, -1 to 1",
    ),
    "protein_r": Metric("protein r", "the same for proteins"),
    "split_gene_r": Metric(
        "genes of neighbours",
        "correlation of the other half's genes with their mean over a cell's neighbours, averaged over genes, -1 to 1",
    ),
    "split_protein_r": Metric("proteins of neighbours", "the same for proteins"),
    "split_gene_ridge_r": Metric(
        "genes by regression",
        "correlation of the other half's genes with their prediction by ridge regression in held-out cells, -1 to 1",
    ),
    "split_protein_ridge_r": Metric("proteins by regression", "the same for proteins"),
    "hidden_gene_r2": Metric("hidden genes R²", "explained variance of hidden genes, cells never trained on, up to 1"),
    "hidden_protein_r2": Metric("hidden proteins R²", "the same for proteins"),
    "protein_from_rna_r": Metric("proteins from RNA", "mean correlation, cells never trained on, -1 to 1"),
    "impute_cell_r": Metric("r per cell", "mean correlation over the z-scored proteins of a cell, -1 to 1"),
    "impute_protein_r": Metric("r per protein", "mean correlation over the cells, -1 to 1"),
    "impute_rmse": Metric("RMSE", "root mean squared error of z-scored proteins", lower_is_better=True),
    "coverage": Metric(
        "coverage", "fraction of measured values inside their 90 % intervals; 0.9 is best", lower_is_better=None
    ),
    "few_labels_f1": Metric("macro F1, few labels", "mean F1 over classes, cells never trained on"),
    "own_batch": Metric(
        "own batch",
        "neighbours from a cell's own batch relative to chance, 0 upwards; 1 if batches are mixed",
        lower_is_better=None,
    ),
    "iLISI": Metric("iLISI", "mixing of batches among 90 neighbours"),
    "kBET": Metric("kBET", "fraction of neighbourhoods within a label whose batches are those expected"),
    "connectivity": Metric("connectivity", "fraction of each label's cells in one component of its neighbour graph"),
    "batch_asw": Metric("batch ASW", "1 - silhouette width of the batches within labels"),
    "PCR": Metric("PCR", "decrease of the variance that batches explain, from principal components to this"),
    "cLISI": Metric("cLISI", "purity of labels among 90 neighbours"),
    "label_asw": Metric("label ASW", "silhouette width of the labels, rescaled to 0 to 1"),
    "isolated": Metric("isolated labels", "the same for labels of the fewest batches"),
    "biology": Metric("biology", "mean of ARI, NMI, label ASW, isolated labels and cLISI"),
    "batch": Metric("batch", "mean of iLISI, kBET, connectivity, batch ASW and PCR"),
    "total": Metric("scIB total", "0.6 biology + 0.4 batch"),
    "seconds": Metric("seconds", "wall-clock time", lower_is_better=True),
    "peak_memory": Metric("GiB", "peak memory of the process", lower_is_better=True),
}
