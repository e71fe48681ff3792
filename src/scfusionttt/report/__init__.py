"""The report of a model and its cells: one HTML page that a biologist would send to a colleague."""

from scfusionttt.report.analysis import Analysis
from scfusionttt.report.page import write_report

__all__ = ["Analysis", "write_report"]
