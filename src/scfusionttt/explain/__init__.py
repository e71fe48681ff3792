"""What a model makes of genes and proteins: surprise along the genome, and what a protein or a class rests on."""

from scfusionttt.explain.relevance import relevance
from scfusionttt.explain.surprise import as_track, by_region, relative, write_track

__all__ = ["as_track", "by_region", "relative", "relevance", "write_track"]
