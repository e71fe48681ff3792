"""The report of a model and its cells: one HTML page that a biologist would send to a colleague."""

from scfusionttt.report.gather import Findings, gather
from scfusionttt.report.page import write_report

__all__ = ["Findings", "gather", "write_report"]
