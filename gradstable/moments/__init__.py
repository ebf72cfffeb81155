"""Moment estimators: gradients in, scaled directions out."""

from gradstable.moments.adadelta import scale_by_adadelta
from gradstable.moments.adam import scale_by_adam
from gradstable.moments.adam_atan2 import scale_by_adam_atan2
from gradstable.moments.adamax import scale_by_adamax
from gradstable.moments.adan import scale_by_adan
from gradstable.moments.ademamix import half_life_schedule, scale_by_ademamix
from gradstable.moments.adopt import scale_by_adopt
from gradstable.moments.amsgrad import scale_by_amsgrad
from gradstable.moments.averages import ema, trace
from gradstable.moments.belief import scale_by_belief
from gradstable.moments.cautious import cautious
from gradstable.moments.clip_by_moment import clip_by_moment
from gradstable.moments.laprop import scale_by_laprop
from gradstable.moments.lion import scale_by_lion
from gradstable.moments.muon import scale_by_muon
from gradstable.moments.nadam import scale_by_nadam
from gradstable.moments.radam import scale_by_radam
from gradstable.moments.rms import scale_by_rms
from gradstable.moments.rss import scale_by_rss
from gradstable.moments.s3 import scale_by_s3
from gradstable.moments.sophia import scale_by_sophia
from gradstable.moments.spam import scale_by_spam
from gradstable.moments.stable_adam import scale_by_stable_adam
from gradstable.moments.stable_spam import scale_by_stable_spam
from gradstable.moments.yogi import scale_by_yogi

__all__ = [
    "cautious",
    "clip_by_moment",
    "ema",
    "half_life_schedule",
    "scale_by_adadelta",
    "scale_by_adam",
    "scale_by_adam_atan2",
    "scale_by_adamax",
    "scale_by_adan",
    "scale_by_ademamix",
    "scale_by_adopt",
    "scale_by_amsgrad",
    "scale_by_belief",
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
    "scale_by_stable_adam",
    "scale_by_stable_spam",
    "scale_by_yogi",
    "trace",
]
