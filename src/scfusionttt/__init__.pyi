"""What type checkers see of the names that `__init__.py` loads lazily."""

from scfusionttt import datasets, evaluation, explain, genome, ttt
from scfusionttt import plotting as plot
from scfusionttt.analysis.background import background
from scfusionttt.analysis.differential import differential
from scfusionttt.analysis.quality import quality
from scfusionttt.data.store.stored import open_store
from scfusionttt.data.validate import validate
from scfusionttt.io.read import read
from scfusionttt.model.fusionttt import FusionTTT
from scfusionttt.model.reference import annotate
from scfusionttt.report import write_report
from scfusionttt.simulation.simulate import simulate, simulate_query

__version__: str
__all__ = [
    "FusionTTT", "__version__", "annotate", "background", "datasets", "differential", "evaluation", "explain", "genome",
    "open_store", "plot", "quality", "read", "simulate", "simulate_query", "ttt", "validate", "write_report",
]  # fmt: skip
