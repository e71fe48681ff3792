from awkward_names import awkward_names, draw, nothing_global

__all__ = ["awkward_names", "draw", "nothing_global"]
