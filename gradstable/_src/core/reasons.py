"""Reason codes: the integers recorded inside ``jit``, and the sentences that they stand for.

Compiled code cannot raise, so a verdict carries a code. Codes are stable across versions,
because they are stored in checkpoints.
"""

import enum
from typing import SupportsInt

# Totals per reason are counted in a vector of this length; user codes are in its upper half.
NUM_REASONS = 64
FIRST_USER_REASON = 32


class Reason(enum.IntEnum):
    """Why a step was accepted, clipped or rejected."""

    OK = 0
    NONFINITE = 1
    OVERFLOW = 2
    NORM_CLIPPED = 3
    SPIKE_CLIPPED = 4
    SPIKE_REJECTED = 5
    BLOCK_CLIPPED = 6
    UNIT_CLIPPED = 7
    QUANTILE_CLIPPED = 8
    ZSCORE_CLIPPED = 9
    HISTORY_CLIPPED = 10
    HISTORY_REJECTED = 11
    LOSS_REJECTED = 12
    GROUP_SCALED = 13
    NORM_STABILIZED = 14
    WEIGHT_REJECTED = 15
    RECURRING_CLIPPED = 16
    RECURRING_LOSS = 17


# What a rule would reject, but lets in at a limited size, since it keeps coming back.
LET_IN = (Reason.RECURRING_CLIPPED, Reason.RECURRING_LOSS)


_SENTENCES: dict[int, str] = {
    Reason.OK: "nothing was wrong",
    Reason.NONFINITE: "the gradient had NaN or infinite entries",
    Reason.OVERFLOW: "the gradient was finite, but so large that its square overflows float32",
    Reason.NORM_CLIPPED: "the gradient norm was above the fixed limit",
    Reason.SPIKE_CLIPPED: "the gradient norm was well above its usual range",
    Reason.SPIKE_REJECTED: "the gradient norm was far above its usual range",
    Reason.BLOCK_CLIPPED: "the gradient of a leaf was above its limit",
    Reason.UNIT_CLIPPED: "the gradient of a unit was large relative to its weights",
    Reason.QUANTILE_CLIPPED: "the gradient norm was above a quantile of its history",
    Reason.ZSCORE_CLIPPED: "the gradient norm had a high z-score",
    Reason.HISTORY_CLIPPED: "the norm was above a limit that follows its recent mean",
    Reason.HISTORY_REJECTED: "the norm was far above its recent mean",
    Reason.LOSS_REJECTED: "the loss was not finite, or far above its usual range",
    Reason.GROUP_SCALED: "the gradient of a group of leaves left its usual range",
    Reason.NORM_STABILIZED: "every leaf was scaled to a norm near 1, based on its history",
    Reason.WEIGHT_REJECTED: "the weight of the micro-batch was negative or not finite",
    Reason.RECURRING_CLIPPED: (
        "the gradient norm was far above its usual range, at a level that it has had before"
    ),
    Reason.RECURRING_LOSS: (
        "the loss was far above its usual range, at a level that it has had before"
    ),
}


def add_reason(code: int, sentence: str) -> int:
    """Register a reason for your own rule, which ``gs.explain`` then reports.

    Args:
      code: an integer in ``[32, 64)``, the same in every process and every run, since it is
        stored in the state and in checkpoints.
      sentence: a clause without a period, such as "the gradient had NaN entries".

    Returns:
      The code, for use in ``Verdict.of(..., reason=code)``.

    Raises:
      ValueError: if the code is out of range or already stands for another sentence.

    Example:
      >>> import gradstable as gs
      >>> gs.rules.add_reason(40, "the batch came from the broken sensor")
      40
    """
    if not FIRST_USER_REASON <= code < NUM_REASONS:
        msg = f"code must be in [{FIRST_USER_REASON}, {NUM_REASONS}), got {code}"
        raise ValueError(msg)
    known = _SENTENCES.setdefault(code, sentence)
    if known != sentence:
        msg = f"code {code} already stands for {known!r}: choose another code"
        raise ValueError(msg)
    return code


def sentence(code: SupportsInt) -> str:
    """Return the clause that a reason code stands for."""
    return _SENTENCES.get(int(code), f"an unnamed rule acted (reason {int(code)})")
