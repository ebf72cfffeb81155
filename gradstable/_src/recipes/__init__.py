"""Assembled optimizers, guard included: composition only."""
