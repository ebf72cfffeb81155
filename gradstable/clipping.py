"""The rules as links of a chain, and clipping entry by entry."""

from gradstable._src.clipping.by_clippy import clip_by_clippy
from gradstable._src.clipping.by_global_norm import clip_by_global_norm
from gradstable._src.clipping.by_value import clip_by_value
from gradstable._src.clipping.clip_by import JudgedState, clip_by
from gradstable._src.clipping.noise import add_noise
from gradstable._src.clipping.qk_clip import qk_clip
from gradstable._src.clipping.soft import soft_clip

__all__ = [
    "JudgedState",
    "add_noise",
    "clip_by",
    "clip_by_clippy",
    "clip_by_global_norm",
    "clip_by_value",
    "qk_clip",
    "soft_clip",
]
