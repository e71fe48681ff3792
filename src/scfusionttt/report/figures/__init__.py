"""Figures: arrays and tables in, matplotlib axes out."""

from scfusionttt.report.figures.calibration import calibration
from scfusionttt.report.figures.chromosomes import chromosome_heatmap, gene_places
from scfusionttt.report.figures.curves import training_curves
from scfusionttt.report.figures.intervals import intervals
from scfusionttt.report.figures.matrix import confusion
from scfusionttt.report.figures.scatter import umap, umap_continuous
from scfusionttt.report.figures.strip import genome_strip
from scfusionttt.report.figures.style import class_colours

__all__ = [
    "calibration",
    "chromosome_heatmap",
    "class_colours",
    "confusion",
    "gene_places",
    "genome_strip",
    "intervals",
    "training_curves",
    "umap",
    "umap_continuous",
]
