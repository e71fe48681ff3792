"""Loops on the CPU: `compile` compiles them with Numba, `share` runs them on torch's threads."""
