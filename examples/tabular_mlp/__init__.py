"""Tabular data: a small dense network on cell measurements, or on a generated problem."""
