"""Decide: rules that accept, scale or reject a whole step from a few measured numbers."""

from gradstable._src.core.reasons import Reason, add_reason
from gradstable._src.core.types import UnitNorms
from gradstable._src.core.unit_norms import UnitRequest
from gradstable._src.rules.adagc import AdagcState, adagc
from gradstable._src.rules.block_norm import block_norm
from gradstable._src.rules.block_rms import block_rms
from gradstable._src.rules.ema_multiple import EmaMultipleState, ema_multiple
from gradstable._src.rules.global_norm import global_norm
from gradstable._src.rules.gradient_stabilizer import (
    GradientStabilizerState,
    gradient_stabilizer,
)
from gradstable._src.rules.group_norm import GroupNormState, group_norm
from gradstable._src.rules.log_mad import LogMadState, log_mad
from gradstable._src.rules.loss_spike import LossSpikeState, loss_spike
from gradstable._src.rules.percentile import percentile
from gradstable._src.rules.protocol import Rule, all_of
from gradstable._src.rules.ring import Ring
from gradstable._src.rules.unit_norm import unit_norm
from gradstable._src.rules.window_clip import window_clip
from gradstable._src.rules.window_sigma import WindowSigmaState, window_sigma
from gradstable._src.rules.zscore import ZScoreState, zscore

__all__ = [
    "AdagcState",
    "EmaMultipleState",
    "GradientStabilizerState",
    "GroupNormState",
    "LogMadState",
    "LossSpikeState",
    "Reason",
    "Ring",
    "Rule",
    "UnitNorms",
    "UnitRequest",
    "WindowSigmaState",
    "ZScoreState",
    "adagc",
    "add_reason",
    "all_of",
    "block_norm",
    "block_rms",
    "ema_multiple",
    "global_norm",
    "gradient_stabilizer",
    "group_norm",
    "log_mad",
    "loss_spike",
    "percentile",
    "unit_norm",
    "window_clip",
    "window_sigma",
    "zscore",
]
