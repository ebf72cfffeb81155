"""Bring a run back, or keep it going: accumulate, drop, roll back, resume."""

from gradstable._src.recovery.accumulate import AccumulateState, accumulate
from gradstable._src.recovery.backoff import BackoffState, backoff
from gradstable._src.recovery.hygiene import MomentHygieneState, moment_hygiene
from gradstable._src.recovery.last_good import last_good, restored
from gradstable._src.recovery.rollback import rollback
from gradstable._src.recovery.turn import RollbackState

__all__ = [
    "AccumulateState",
    "BackoffState",
    "MomentHygieneState",
    "RollbackState",
    "accumulate",
    "backoff",
    "last_good",
    "moment_hygiene",
    "restored",
    "rollback",
]
