"""What brings a run back, or keeps it going: gathering, dropping, returning."""

from gradstable.recovery.accumulate import AccumulateState, accumulate
from gradstable.recovery.migrate import migrate_state
from gradstable.recovery.schema import check_schema, state_schema

__all__ = ["AccumulateState", "accumulate", "check_schema", "migrate_state", "state_schema"]
