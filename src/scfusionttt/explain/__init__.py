"""Explain a model: surprise along the genome, and the features that a protein or a class depends on."""

from scfusionttt.explain.relevance import relevance
from scfusionttt.explain.surprise import as_track, by_region, relative, write_track

__all__ = ["as_track", "by_region", "relative", "relevance", "write_track"]
