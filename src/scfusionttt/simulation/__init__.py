"""Simulated CITE-seq with known ground truth, for tests, demos and positive controls."""

from scfusionttt.simulation.simulate import simulate, simulate_query

__all__ = ["simulate", "simulate_query"]
