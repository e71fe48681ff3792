"""What type checkers see of the names that `__init__.py` loads lazily."""

from scfusionttt import datasets, evaluation, explain, genome, ttt
from scfusionttt import plotting as plot
from scfusionttt.analysis.background import background
from scfusionttt.analysis.differential import differential
from scfusionttt.analysis.quality import quality
from scfusionttt.model.fusionttt import FusionTTT
from scfusionttt.model.reference import annotate
from scfusionttt.simulation.simulate import simulate

__version__: str
__all__ = [
    "FusionTTT", "__version__", "annotate", "background", "datasets", "differential", "evaluation", "explain", "genome",
    "plot", "quality", "simulate", "ttt",
]  # fmt: skip
