"""scFusionTTT: fuse RNA and surface proteins of CITE-seq cells with Test-Time Training layers."""

from importlib import import_module
from importlib.metadata import version

from scfusionttt.threads import rest_soon

rest_soon()
__version__ = version("scfusionttt")
__all__ = ["FusionTTT", "__version__", "datasets", "evaluation", "explain", "genome", "plot", "simulate"]


def __getattr__(name: str) -> object:
    """Load torch, scanpy and Lightning when they are used, not when the package is imported."""
    if name == "FusionTTT":
        return import_module("scfusionttt.model").FusionTTT
    if name == "simulate":
        return import_module("scfusionttt.data.simulate").simulate
    if name in {"data", "datasets", "evaluation", "explain", "genome", "nn", "plot", "report", "ttt"}:
        return import_module(f"scfusionttt.{name}")
    raise AttributeError(f"module 'scfusionttt' has no attribute {name!r}")
