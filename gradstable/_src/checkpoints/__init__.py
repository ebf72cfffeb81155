"""Optimizer states on disk: what they contain, and how to upgrade older ones."""
