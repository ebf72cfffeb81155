"""Shared by the examples: options, faults, the two contestants, and their comparison."""
