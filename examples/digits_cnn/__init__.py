"""Handwritten digits, with all that makes a small network generalize."""
