"""What is recorded of a step, and in which order."""

import enum
from collections.abc import Mapping
from typing import Any

# To be raised when a field changes its meaning.
FORMAT = 1

# The columns of the ring buffer, all float32 there.
NUMBERS = ("loss", "grad_norm", "threshold", "scale", "update_ratio", "rms", "lr_factor")
# Small integers, exact in float32; -1 stands for none.
INTEGERS = ("reason", "worst_leaf", "rms_leaf", "alarms")
# The last column has a bit for each number that is known: a loss that is NaN is, one that nobody
# passed is not.
FIELDS = (*NUMBERS, *INTEGERS, "known")


class Alarm(enum.IntFlag):
    """Early warnings: what moves before the loss does."""

    RMS = 1
    UPDATE_RATIO = 2


ALARM_SENTENCES = {
    Alarm.RMS: "the second moment lagged behind the gradient (RMS_t)",
    Alarm.UPDATE_RATIO: "updates were large beside the parameters",
}


def member_of(row: Mapping[str, Any]) -> str:
    """Return which of several runs a row is of: ``3``, or ``1-3`` of two axes; empty for one."""
    return "-".join(map(str, row.get("member", ())))
