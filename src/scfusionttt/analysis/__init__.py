"""What is computed from the counts of an input without a model."""
