from command_line import here

__all__ = ["here"]
