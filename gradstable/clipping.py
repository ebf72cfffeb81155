"""The rules as chainable transforms."""

from gradstable._src.clipping.by_adagc import clip_by_adagc
from gradstable._src.clipping.by_block import clip_by_block_norm, clip_by_block_rms
from gradstable._src.clipping.by_clippy import clip_by_clippy
from gradstable._src.clipping.by_group import clip_by_group_norm
from gradstable._src.clipping.by_history import (
    clip_by_percentile,
    clip_by_window,
    clip_by_zscore,
    reject_by_ema_multiple,
    reject_by_loss_spike,
    reject_by_window_sigma,
)
from gradstable._src.clipping.by_stabilizer import scale_by_gradient_stabilizer
from gradstable._src.clipping.by_unit import clip_by_unit_norm
from gradstable._src.clipping.by_value import clip_by_value
from gradstable._src.clipping.clip_by import clip_by_global_norm, clip_by_log_mad
from gradstable._src.clipping.judged import JudgedState, clip_by_rule
from gradstable._src.clipping.noise import add_noise
from gradstable._src.clipping.qk_clip import qk_clip
from gradstable._src.clipping.soft import soft_clip

__all__ = [
    "JudgedState",
    "add_noise",
    "clip_by_adagc",
    "clip_by_block_norm",
    "clip_by_block_rms",
    "clip_by_clippy",
    "clip_by_global_norm",
    "clip_by_group_norm",
    "clip_by_log_mad",
    "clip_by_percentile",
    "clip_by_rule",
    "clip_by_unit_norm",
    "clip_by_value",
    "clip_by_window",
    "clip_by_zscore",
    "qk_clip",
    "reject_by_ema_multiple",
    "reject_by_loss_spike",
    "reject_by_window_sigma",
    "scale_by_gradient_stabilizer",
    "soft_clip",
]
