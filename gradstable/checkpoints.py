"""Optimizer states on disk: what is in them, and how older ones become new ones."""

from gradstable._src.checkpoints.migrate import migrate_state
from gradstable._src.checkpoints.schema import check_schema, state_schema
from gradstable._src.checkpoints.upgrade import upgrade_state

__all__ = [
    "check_schema",
    "migrate_state",
    "state_schema",
    "upgrade_state",
]
