"""Decide: rules that accept, scale or reject a whole step from a few measured numbers."""

from gradstable._core.reasons import Reason, add_reason
from gradstable._core.types import UnitNorms
from gradstable._core.unit_norms import UnitRequest
from gradstable.rules.global_norm import global_norm
from gradstable.rules.log_mad import LogMadState, log_mad
from gradstable.rules.protocol import Rule, all_of

__all__ = [
    "LogMadState",
    "Reason",
    "Rule",
    "UnitNorms",
    "UnitRequest",
    "add_reason",
    "all_of",
    "global_norm",
    "log_mad",
]
