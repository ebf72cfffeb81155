"""The rules as chainable transforms."""

from gradstable.clipping.clip_by import clip_by_global_norm, clip_by_log_mad
from gradstable.clipping.judged import JudgedState, clip_by_rule

__all__ = ["JudgedState", "clip_by_global_norm", "clip_by_log_mad", "clip_by_rule"]
