"""Moment estimators: gradients in, scaled directions out."""

from gradstable._src.moments.adadelta import scale_by_adadelta
from gradstable._src.moments.adam import scale_by_adam
from gradstable._src.moments.adam_8bit import scale_by_adam_8bit
from gradstable._src.moments.adam_atan2 import scale_by_adam_atan2
from gradstable._src.moments.adamax import scale_by_adamax
from gradstable._src.moments.adan import scale_by_adan
from gradstable._src.moments.ademamix import half_life_schedule, scale_by_ademamix
from gradstable._src.moments.adopt import scale_by_adopt
from gradstable._src.moments.amsgrad import scale_by_amsgrad
from gradstable._src.moments.averages import ema, trace
from gradstable._src.moments.belief import scale_by_belief
from gradstable._src.moments.cautious import cautious
from gradstable._src.moments.clip_by_moment import clip_by_moment
from gradstable._src.moments.clipped_adam import scale_by_clipped_adam
from gradstable._src.moments.laprop import scale_by_laprop
from gradstable._src.moments.lion import scale_by_lion
from gradstable._src.moments.muon import scale_by_muon
from gradstable._src.moments.nadam import scale_by_nadam
from gradstable._src.moments.radam import scale_by_radam
from gradstable._src.moments.rms import scale_by_rms
from gradstable._src.moments.rss import scale_by_rss
from gradstable._src.moments.s3 import scale_by_s3
from gradstable._src.moments.sophia import scale_by_sophia
from gradstable._src.moments.spam import scale_by_spam
from gradstable._src.moments.stable_spam import scale_by_stable_spam
from gradstable._src.moments.yogi import scale_by_yogi

__all__ = [
    "cautious",
    "clip_by_moment",
    "ema",
    "half_life_schedule",
    "scale_by_adadelta",
    "scale_by_adam",
    "scale_by_adam_8bit",
    "scale_by_adam_atan2",
    "scale_by_adamax",
    "scale_by_adan",
    "scale_by_ademamix",
    "scale_by_adopt",
    "scale_by_amsgrad",
    "scale_by_belief",
    "scale_by_clipped_adam",
    "scale_by_laprop",
    "scale_by_lion",
    "scale_by_muon",
    "scale_by_nadam",
    "scale_by_radam",
    "scale_by_rms",
    "scale_by_rss",
    "scale_by_s3",
    "scale_by_sophia",
    "scale_by_spam",
    "scale_by_stable_spam",
    "scale_by_yogi",
    "trace",
]
