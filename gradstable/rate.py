"""Step sizes that follow the run's health: caps, trust ratios, and additions to schedules."""

from gradstable._src.rate.backoff_on_spike import backoff_on_spike
from gradstable._src.rate.cap_trust import cap_trust
from gradstable._src.rate.cap_update_rms import cap_update_rms
from gradstable._src.rate.govern import GovernState, govern
from gradstable._src.rate.limit_schedule import limit_schedule
from gradstable._src.rate.reduce_on_plateau import reduce_on_plateau
from gradstable._src.rate.trust_ratio import scale_by_trust_ratio

__all__ = [
    "GovernState",
    "backoff_on_spike",
    "cap_trust",
    "cap_update_rms",
    "govern",
    "limit_schedule",
    "reduce_on_plateau",
    "scale_by_trust_ratio",
]
