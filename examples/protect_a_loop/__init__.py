"""Loops before and after they are protected, and what one does with such a run."""
