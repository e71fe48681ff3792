"""Cells streamed from disk: written from one or several inputs, read some cells at a time."""
