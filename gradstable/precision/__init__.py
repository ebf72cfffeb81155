"""What training in few bits needs: a loss scale, small moments, and parameters that move."""

from gradstable.precision.compress_moments import CompressMomentsState, compress_moments
from gradstable.precision.kahan import KahanState, kahan
from gradstable.precision.loss_scale import LossScaleState, loss_scale, scale_loss, unscale
from gradstable.precision.stochastic_round import StochasticRoundState, stochastic_round

__all__ = [
    "CompressMomentsState",
    "KahanState",
    "LossScaleState",
    "StochasticRoundState",
    "compress_moments",
    "kahan",
    "loss_scale",
    "scale_loss",
    "stochastic_round",
    "unscale",
]
