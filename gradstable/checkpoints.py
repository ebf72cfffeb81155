"""Optimizer states on disk: what they contain, and how to upgrade older ones."""

from gradstable._src.checkpoints.migrate import migrate_state
from gradstable._src.checkpoints.schema import check_schema, state_schema
from gradstable._src.checkpoints.upgrade import upgrade_state

__all__ = [
    "check_schema",
    "migrate_state",
    "state_schema",
    "upgrade_state",
]
