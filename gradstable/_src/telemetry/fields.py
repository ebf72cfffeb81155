"""What is recorded for each step, and in which order."""

import enum
from collections.abc import Mapping
from typing import Any, NamedTuple

# Raise this when a field changes its meaning.
FORMAT = 1

# The columns of the ring buffer, all float32 there.
NUMBERS = ("loss", "grad_norm", "threshold", "scale", "update_ratio", "rms", "lr_factor")
# Small integers, exact in float32; -1 means none.
INTEGERS = ("reason", "worst_leaf", "rms_leaf", "alarms")
# Parts of the gradient that stood out, in a ring of their own, where 0 means none.
PARTS = ("micro_batch", "device")
# The last column has a bit for each number that is known: a NaN loss is known, a loss that was not
# passed is not.
FIELDS = (*NUMBERS, *INTEGERS, "known")


class Kind(enum.Enum):
    """The kinds of values in a run file."""

    STEP = "a step number"  # 1 .. 2^31 - 1, the range of the counter
    COUNT = "a whole number"  # 64 bits
    INDEX = "a small whole number"  # -1 .. 2^31 - 1
    NUMBER = "a number"  # or one of the strings for NaN and infinities
    NUMBERS = "a list of numbers"
    TEXT = "text"
    TEXTS = "a list of texts"
    COUNTS = "a list of whole numbers"
    OBJECT = "an object"


class Field(NamedTuple):
    """One field of a line: its kind, and whether the line is meaningless without it."""

    kind: Kind
    required: bool = False


# Every line of a run file, by its event. Writer, reader and tests use this table: a field listed
# here is checked when it is read, and a field that is not listed is not read at all.
LINES: Mapping[str, Mapping[str, Field]] = {
    "run": {
        "format": Field(Kind.COUNT),
        "gradstable": Field(Kind.TEXT),
        "jax": Field(Kind.TEXT),
        "name": Field(Kind.TEXT),
        "leaves": Field(Kind.TEXTS),
        "sizes": Field(Kind.COUNTS),
        "dtypes": Field(Kind.TEXTS),
        "config": Field(Kind.OBJECT),
    },
    "step": {
        "step": Field(Kind.STEP, required=True),
        **{name: Field(Kind.NUMBER) for name in NUMBERS},
        **{name: Field(Kind.INDEX) for name in (*INTEGERS, *PARTS)},
        "leaf_norms": Field(Kind.NUMBERS),
        "taps": Field(Kind.OBJECT),  # lists of numbers by name
    },
    # Replaces the leaves of the header if the recorder sees others.
    "leaves": {
        "leaves": Field(Kind.TEXTS, required=True),
        "sizes": Field(Kind.COUNTS),
        "dtypes": Field(Kind.TEXTS),
    },
    # All other fields of this event are numbers named by the training loop.
    "scalars": {"step": Field(Kind.COUNT, required=True)},
    "note": {
        "step": Field(Kind.COUNT, required=True),
        "text": Field(Kind.TEXT, required=True),
    },
    "rollback": {
        "step": Field(Kind.COUNT, required=True),
        "to": Field(Kind.COUNT, required=True),
        "times": Field(Kind.COUNT),
    },
    "lost": {
        "first": Field(Kind.COUNT, required=True),
        "last": Field(Kind.COUNT, required=True),
    },
    "end": {"step": Field(Kind.COUNT)},
}


class Alarm(enum.IntFlag):
    """Early warnings: signals that move before the loss does."""

    RMS = 1
    UPDATE_RATIO = 2


ALARM_SENTENCES = {
    Alarm.RMS: "the second moment lagged behind the gradient (RMS_t)",
    Alarm.UPDATE_RATIO: "updates were large relative to the parameters",
}


def which_part(row: Mapping[str, Any]) -> str:
    """Return the part of a gradient that stood out, to be added to a sentence; else nothing."""
    named = (("micro-batch", row.get("micro_batch", -1)), ("device", row.get("device", -1)))
    found = [f"{what} {index}" for what, index in named if index >= 0]
    return f" ({', '.join(found)} stood out)" if found else ""


def member_of(row: Mapping[str, Any]) -> str:
    """Return which of several runs a row belongs to: ``3``, or ``1-3`` for two axes; else empty."""
    return "-".join(map(str, row.get("member", ())))
