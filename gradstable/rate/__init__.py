"""Step size that sees health: caps, trust ratios, and companions of learning-rate schedules."""

from gradstable.rate.backoff_on_spike import backoff_on_spike
from gradstable.rate.cap_trust import cap_trust
from gradstable.rate.cap_update_rms import cap_update_rms
from gradstable.rate.limit_schedule import limit_schedule
from gradstable.rate.reduce_on_plateau import reduce_on_plateau
from gradstable.rate.trust_ratio import scale_by_trust_ratio

__all__ = [
    "backoff_on_spike",
    "cap_trust",
    "cap_update_rms",
    "limit_schedule",
    "reduce_on_plateau",
    "scale_by_trust_ratio",
]
