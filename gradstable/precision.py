"""Low-precision training: a loss scale, small moments, and parameters that keep moving."""

from gradstable._src.precision.compress_moments import (
    CompressMomentsState,
    compress_moments,
)
from gradstable._src.precision.kahan import KahanState, kahan
from gradstable._src.precision.loss_scale import (
    LossScaleState,
    loss_scale,
    scale_loss,
    unscale,
)
from gradstable._src.precision.stochastic_round import (
    StochasticRoundState,
    stochastic_round,
)

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
