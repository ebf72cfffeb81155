"""What training in few bits needs: a loss scale, and parameters that small steps still move."""

from gradstable.precision.kahan import KahanState, kahan
from gradstable.precision.loss_scale import LossScaleState, loss_scale, scale_loss, unscale
from gradstable.precision.stochastic_round import StochasticRoundState, stochastic_round

__all__ = [
    "KahanState",
    "LossScaleState",
    "StochasticRoundState",
    "kahan",
    "loss_scale",
    "scale_loss",
    "stochastic_round",
    "unscale",
]
