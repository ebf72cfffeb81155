"""Flax linen: a dense network with ``TrainState``."""
