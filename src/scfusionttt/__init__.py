"""scFusionTTT: fuse RNA and surface proteins of CITE-seq cells with Test-Time Training layers."""

from importlib import import_module
from importlib.metadata import version

from scfusionttt.threads import limit_spinning

limit_spinning()
__version__ = version("scfusionttt")
__all__ = [
    "FusionTTT",
    "__version__",
    "annotate",
    "background",
    "datasets",
    "differential",
    "evaluation",
    "explain",
    "genome",
    "open_store",
    "plot",
    "quality",
    "read",
    "simulate",
    "simulate_query",
    "ttt",
    "validate",
    "write_report",
]

#: Public names that are not modules of the same name; keep `__init__.pyi` in step.
_LAZY = {
    "FusionTTT": ("scfusionttt.model.fusionttt", "FusionTTT"),
    "annotate": ("scfusionttt.model.reference", "annotate"),
    "background": ("scfusionttt.analysis.background", "background"),
    "differential": ("scfusionttt.analysis.differential", "differential"),
    "open_store": ("scfusionttt.data.store.stored", "open_store"),
    "plot": ("scfusionttt.plotting", None),
    "quality": ("scfusionttt.analysis.quality", "quality"),
    "read": ("scfusionttt.io.read", "read"),
    "simulate": ("scfusionttt.simulation.simulate", "simulate"),
    "simulate_query": ("scfusionttt.simulation.simulate", "simulate_query"),
    "validate": ("scfusionttt.data.validate", "validate"),
    "write_report": ("scfusionttt.report", "write_report"),
}


def __getattr__(name: str) -> object:
    """Load a public name when it is used, so that importing the package does not load torch, scanpy and Lightning."""
    if name in _LAZY:
        module, attribute = _LAZY[name]
        return getattr(import_module(module), attribute) if attribute else import_module(module)
    if name in __all__:
        return import_module(f"scfusionttt.{name}")
    raise AttributeError(f"module 'scfusionttt' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
