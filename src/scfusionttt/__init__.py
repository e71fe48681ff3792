"""scFusionTTT: fuse RNA and surface proteins of CITE-seq cells with Test-Time Training layers."""

from importlib import import_module
from importlib.metadata import version

from scfusionttt.threads import rest_soon

rest_soon()
__version__ = version("scfusionttt")
__all__ = ["FusionTTT", "__version__", "datasets", "evaluation", "explain", "genome", "plot", "simulate", "ttt"]


#: Public names that are not a module of the same name.
_ELSEWHERE = {
    "FusionTTT": ("scfusionttt.model.fusionttt", "FusionTTT"),
    "plot": ("scfusionttt.plotting", None),
    "simulate": ("scfusionttt.simulation.simulate", "simulate"),
}


def __getattr__(name: str) -> object:
    """Load torch, scanpy and Lightning when they are used, not when the package is imported."""
    if name in _ELSEWHERE:
        module, attribute = _ELSEWHERE[name]
        return getattr(import_module(module), attribute) if attribute else import_module(module)
    if name in __all__:
        return import_module(f"scfusionttt.{name}")
    raise AttributeError(f"module 'scfusionttt' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
