"""The report of a model and cells as one HTML page."""

from scfusionttt.report.analysis import Analysis
from scfusionttt.report.page import write_report

__all__ = ["Analysis", "write_report"]
