"""Figures: arrays and tables in, matplotlib axes out."""

from scfusionttt.report.figures.curves import training_curves
from scfusionttt.report.figures.intervals import intervals
from scfusionttt.report.figures.matrix import confusion
from scfusionttt.report.figures.scatter import umap, umap_continuous
from scfusionttt.report.figures.strip import genome_strip
from scfusionttt.report.figures.style import class_colours

__all__ = ["class_colours", "confusion", "genome_strip", "intervals", "training_curves", "umap", "umap_continuous"]
