"""Decide: rules that accept, scale or reject a whole step from a few measured numbers."""

from gradstable._core.reasons import Reason, add_reason
from gradstable._core.types import UnitNorms
from gradstable._core.unit_norms import UnitRequest
from gradstable.rules.adagc import AdagcState, adagc
from gradstable.rules.block_norm import block_norm
from gradstable.rules.block_rms import block_rms
from gradstable.rules.ema_multiple import EmaMultipleState, ema_multiple
from gradstable.rules.global_norm import global_norm
from gradstable.rules.gradient_stabilizer import GradientStabilizerState, gradient_stabilizer
from gradstable.rules.group_norm import GroupNormState, group_norm
from gradstable.rules.log_mad import LogMadState, log_mad
from gradstable.rules.loss_spike import LossSpikeState, loss_spike
from gradstable.rules.percentile import percentile
from gradstable.rules.protocol import Rule, all_of
from gradstable.rules.ring import Ring
from gradstable.rules.unit_norm import unit_norm
from gradstable.rules.window_clip import window_clip
from gradstable.rules.window_sigma import WindowSigmaState, window_sigma
from gradstable.rules.zscore import ZScoreState, zscore

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
