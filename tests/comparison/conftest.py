from comparison_runs import cohort, dataset, mosaic

__all__ = ["cohort", "dataset", "mosaic"]
