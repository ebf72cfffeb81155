"""Handwritten digits, with the usual techniques that make a small network generalize."""
