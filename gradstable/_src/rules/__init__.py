"""Decide: rules that accept, scale or reject a whole step from a few measured numbers."""
