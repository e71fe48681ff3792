"""Plots of AnnData and MuData (`plots`), and the figures behind them, drawn from arrays and tables (`figures`)."""

from scfusionttt.plotting.plots import (
    chromosomes,
    comparison,
    confusion,
    contributions,
    dotplot,
    genome_strip,
    order_study,
    training_curves,
    umap,
    violin,
    volcano,
)

__all__ = [
    "chromosomes",
    "comparison",
    "confusion",
    "contributions",
    "dotplot",
    "genome_strip",
    "order_study",
    "training_curves",
    "umap",
    "violin",
    "volcano",
]
