"""Cells on disk, streamed: written from one or several inputs, read some cells at a time."""
