"""Figures drawn from arrays and tables; each function returns matplotlib axes."""

from scfusionttt.plotting.figures.calibration import calibration
from scfusionttt.plotting.figures.chromosomes import chromosome_heatmap, gene_places
from scfusionttt.plotting.figures.contributions import contributions
from scfusionttt.plotting.figures.curves import by_run, training_curves
from scfusionttt.plotting.figures.dots import dot_plot
from scfusionttt.plotting.figures.intervals import intervals
from scfusionttt.plotting.figures.matrix import confusion
from scfusionttt.plotting.figures.scatter import umap, umap_continuous
from scfusionttt.plotting.figures.strip import genome_strip
from scfusionttt.plotting.figures.style import class_colours
from scfusionttt.plotting.figures.violins import violins
from scfusionttt.plotting.figures.volcano import volcano

__all__ = [
    "by_run",
    "calibration",
    "chromosome_heatmap",
    "class_colours",
    "confusion",
    "contributions",
    "dot_plot",
    "gene_places",
    "genome_strip",
    "intervals",
    "training_curves",
    "umap",
    "umap_continuous",
    "violins",
    "volcano",
]
