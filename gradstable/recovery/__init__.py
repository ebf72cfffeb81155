"""What brings a run back, or keeps it going: gathering, dropping, returning, resuming."""

from gradstable.recovery.accumulate import AccumulateState, accumulate
from gradstable.recovery.backoff import BackoffState, backoff
from gradstable.recovery.hygiene import MomentHygieneState, moment_hygiene
from gradstable.recovery.last_good import last_good, restored
from gradstable.recovery.migrate import migrate_state
from gradstable.recovery.rollback import rollback
from gradstable.recovery.schema import check_schema, state_schema
from gradstable.recovery.turn import RollbackState
from gradstable.recovery.upgrade import upgrade_state

__all__ = [
    "AccumulateState",
    "BackoffState",
    "MomentHygieneState",
    "RollbackState",
    "accumulate",
    "backoff",
    "check_schema",
    "last_good",
    "migrate_state",
    "moment_hygiene",
    "restored",
    "rollback",
    "state_schema",
    "upgrade_state",
]
