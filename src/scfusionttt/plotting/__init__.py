"""Plots of AnnData and MuData for users, and the figures (arrays in, axes out) that they and the report are made of."""

from scfusionttt.plotting.plots import (
    chromosomes,
    comparison,
    confusion,
    genome_strip,
    order_study,
    training_curves,
    umap,
)

__all__ = ["chromosomes", "comparison", "confusion", "genome_strip", "order_study", "training_curves", "umap"]
