"""Our model and its baselines on the same cells, with the same clustering and the same metrics."""
