"""The command line."""

from gradstable._src.cli import main

__all__ = ["main"]
