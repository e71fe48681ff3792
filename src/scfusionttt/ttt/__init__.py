"""The TTT operator: pure functions of tensors, without state or modules.

`ttt_linear` and `ttt_mlp` are the entry points; `definition` is the truth, the other backends are fast.
"""

from scfusionttt.ttt.backends import BACKENDS, choose_backend
from scfusionttt.ttt.dispatch import TTTOutput, step_sizes, ttt_linear, ttt_mlp

__all__ = ["BACKENDS", "TTTOutput", "choose_backend", "step_sizes", "ttt_linear", "ttt_mlp"]
