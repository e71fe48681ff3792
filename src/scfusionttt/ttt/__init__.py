"""The TTT operator: pure functions of tensors, without state or modules.

`ttt_linear` and `ttt_mlp` are the entry points; `definition` is the reference, the other backends are fast.
"""

from scfusionttt.ttt.backends import BACKENDS
from scfusionttt.ttt.choice import choose_backend
from scfusionttt.ttt.dispatch import TTTOutput, step_sizes, ttt_linear, ttt_mlp
from scfusionttt.ttt.packed import split_heads

__all__ = ["BACKENDS", "TTTOutput", "choose_backend", "split_heads", "step_sizes", "ttt_linear", "ttt_mlp"]
