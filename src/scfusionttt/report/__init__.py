"""Figures and the one-file HTML report: arrays and tables in, axes or a page out."""

from scfusionttt.report.cell_map import CellMap, Values
from scfusionttt.report.figures import (
    calibration,
    chromosome_heatmap,
    class_colours,
    confusion,
    gene_places,
    genome_strip,
    intervals,
    training_curves,
    umap,
    umap_continuous,
)
from scfusionttt.report.html import Figure, Section, html_report, png
from scfusionttt.report.tables import PROTOCOLS, Table, key_values, metric_table

__all__ = [
    "PROTOCOLS",
    "CellMap",
    "Figure",
    "Section",
    "Table",
    "Values",
    "calibration",
    "chromosome_heatmap",
    "class_colours",
    "confusion",
    "gene_places",
    "genome_strip",
    "html_report",
    "intervals",
    "key_values",
    "metric_table",
    "png",
    "training_curves",
    "umap",
    "umap_continuous",
]
