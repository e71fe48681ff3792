from comparison_runs import cohort, dataset

__all__ = ["cohort", "dataset"]
