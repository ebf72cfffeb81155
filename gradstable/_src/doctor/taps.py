"""Values inside of the model that grow, as ``gs.tap`` has measured them."""

from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np

from gradstable._src.doctor.diagnosis import Diagnosis, Evidence, Severity, all_hold
from gradstable._src.telemetry.run import Run
from gradstable._src.telemetry.tap_columns import TapRecord

# Fewer records are no trend, of the run and of the stretch that grows.
_RECORDS, _GROWING = 8, 6
# Growth begins where the logarithm has left the lowest tenth of its way for good.
_BEGINS = 0.1
# Growth is steady if this share of all pairs of records is in order; noise around a level has half.
_STEADY = 0.8
# It goes on if the last third is this share of the way above the middle one: in the logarithm, a
# line has a third, and a steady slope from 1 to 100 a tenth.
_GOES_ON = 0.05
# Attention logits are too large from here on, where QK-clip acts (Kimi K2); and they have grown by
# this factor.
_LOGIT, _LOGIT_GROWS = 100.0, 4.0
# Activations grow by a factor of a few in any training.
_ACTIVATION_GROWS = 30.0

_ATTENTION = (
    "Normalize queries and keys (QK-norm), or bend the logits with gs.losses.soft_cap. To keep the "
    "architecture, put gs.clipping.qk_clip behind the optimizer: it shrinks the heads whose logits "
    "are too large, and takes gs.taps.max_logits(taps)."
)
_CLASSES = (
    "Add gs.losses.z_loss, which keeps the normalizer of the softmax near 1, or bend the logits "
    "with gs.losses.soft_cap."
)
_ACTIVATIONS = (
    "Normalize in front of the layers that read them, and the last one (pre-norm), or scale down "
    "what each block adds. If it is meant to grow, this run needs no action, but float16 ends at "
    "65504."
)


class Growth(NamedTuple):
    """How a tap has grown.

    Attributes:
      name: the tap, or one layer of it.
      since: the step at which it began.
      start: the largest value then.
      end: the largest value at the end, the median of three records.
      steady: which share of the pairs of records since then is in order.
      goes_on: by which share of the way the last third is above the middle one.
      head: the head with the largest logit at the end; -1 if there are no heads.
    """

    name: str
    since: int
    start: float
    end: float
    steady: float
    goes_on: float
    head: int

    @property
    def factor(self) -> float:
        """By how much."""
        return self.end / self.start


def attention_logits_grow(run: Run) -> Diagnosis | None:
    """Find attention logits that grow until the softmax saturates.

    Rule, for a tap of attention logits with 8 records or more: its largest logit ends above 100,
    after it has grown by more than a factor of 4. It began where the logarithm left the lowest
    tenth of its way for good, 6 records or more before the end; 80 % of all pairs of records since
    then are in order; and the last third of them is above the middle one by 5 % of the way.
    """
    return _diagnosis(
        "attention_logits_grow",
        (grown_by(name, tap) for name, tap in run.taps.items() if tap.of_attention),
        _LOGIT_GROWS,
        lambda grown: f"The attention logits of {_whose(grown)}",
        _ATTENTION,
    )


def activations_grow(run: Run) -> Diagnosis | None:
    """Find activations, or logits of the classes, that grow without end.

    Rule: that of ``attention_logits_grow``, for any other tap, and a factor of 30 whatever the
    value. A tap whose name ends with ``logits`` is one of the logits of classes: those also count
    if they have grown by a factor of 4 to above 100.
    """
    taps = [(name, tap) for name, tap in run.taps.items() if not tap.of_attention]
    logits = [one for one in taps if _is_of_logits(one[0])]
    found = _diagnosis(
        "activations_grow",
        (grown_by(name, tap) for name, tap in logits),
        _LOGIT_GROWS,
        lambda grown: f"The logits of {grown.name}",
        _CLASSES,
    )
    return found or _diagnosis(
        "activations_grow",
        (grown_by(name, tap) for name, tap in taps if not _is_of_logits(name)),
        _ACTIVATION_GROWS,
        lambda grown: f"The activations at {grown.name}",
        _ACTIVATIONS,
    )


def grown_by(name: str, tap: TapRecord) -> Growth | None:
    """Return how a tap has grown; ``None`` if it has too few records."""
    largest = tap.forward["max_abs"]
    known = np.isfinite(largest) & (largest > 0)
    steps, logs = tap.step[known], np.log(largest[known])
    if len(steps) < _RECORDS:
        return None
    # The median of three, so that a single batch is no growth.
    logs = np.median(np.lib.stride_tricks.sliding_window_view(logs, 3), axis=1)
    steps = steps[1:-1]
    low, end = float(logs.min()), float(logs[-1])
    begin = int(np.flatnonzero(logs <= low + _BEGINS * (end - low))[-1])
    rising = logs[begin:]
    if len(rising) < _GROWING:
        return None
    later, earlier = np.triu_indices(len(rising), 1)[::-1]
    third = len(rising) // 3
    way = float(rising[-1] - rising[0])
    climb = float(np.median(rising[-third:]) - np.median(rising[third:-third]))
    return Growth(
        name,
        since=int(steps[begin]),
        start=float(np.exp(rising[0])),
        end=float(np.exp(end)),
        steady=float(np.mean(rising[later] > rising[earlier])),
        goes_on=climb / way if way > 0 else 0.0,
        head=int(tap.head[-1]),
    )


def _diagnosis(
    rule: str,
    grown: Iterable[Growth | None],
    least_factor: float,
    what: Callable[[Growth], str],
    advice: str,
) -> Diagnosis | None:
    """Return the diagnosis of the largest of those that hold, if any."""
    held = [one for one in grown if one is not None and all_hold(_evidence(one, least_factor))]
    if not held:
        return None
    worst = max(held, key=lambda one: one.end)
    others = f", and {len(held) - 1:,} other taps do" if len(held) > 2 else ""
    others = ", and another tap does" if len(held) == 2 else others
    return Diagnosis(
        rule,
        Severity.SERIOUS if least_factor == _LOGIT_GROWS else Severity.MILD,
        f"{what(worst)} grow since step {worst.since:,}, from {worst.start:.3g} to "
        f"{worst.end:.3g}{others}.",
        _evidence(worst, least_factor),
        advice,
    )


def _evidence(grown: Growth, least_factor: float) -> tuple[Evidence, ...]:
    limit = (Evidence("largest logit at the end", grown.end, ">", _LOGIT),)
    return (
        *(limit if least_factor == _LOGIT_GROWS else ()),
        Evidence("the same over that when it began", grown.factor, ">", least_factor),
        Evidence("share of pairs of records in order", grown.steady, ">=", _STEADY),
        Evidence("share of the way in the last third", grown.goes_on, ">=", _GOES_ON),
    )


def _whose(grown: Growth) -> str:
    return f"{grown.name} (head {grown.head})" if grown.head >= 0 else grown.name


def _is_of_logits(name: str) -> bool:
    return name.rpartition("/")[2].endswith("logits")
