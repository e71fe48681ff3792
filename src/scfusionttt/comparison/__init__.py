"""Our model and its peers on the same cells, by the same clustering and the same metrics."""
