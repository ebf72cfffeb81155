"""Patterns of rejected steps and of those let in: isolated, a burst, or a steady share."""

from collections.abc import Sequence

import numpy as np
import pytest

from gradstable._src.telemetry.patterns import Judged, Pattern, Shape, patterns, tell
from gradstable.rules import Reason

LEAVES = ("trunk", "head")


def judged(
    number: int,
    at: Sequence[int] | np.ndarray,
    *,
    reason: Reason = Reason.SPIKE_REJECTED,
    level: float = 50.0,
    first: int = 1,
) -> Judged:
    """Return steps with a norm of 2, of which some are touched, with a multiple of it."""
    step = np.arange(first, first + number)
    here = np.isin(step, at)
    clipped = reason == Reason.RECURRING_CLIPPED
    return Judged(
        step=step,
        grad_norm=np.where(here, 2.0 * level, 2.0),
        scale=np.where(here, 1 / level if clipped else 0.0, 1.0),
        reason=np.where(here, int(reason), int(Reason.OK)),
        worst_leaf=np.where(here, 1, 0),
    )


def only(steps: Judged) -> Pattern:
    (one,) = patterns(steps)
    return one


def every(step: int, first: int, last: int) -> np.ndarray:
    return np.arange(first, last + 1, step)


@pytest.mark.parametrize("reason", [Reason.SPIKE_REJECTED, Reason.RECURRING_CLIPPED])
@pytest.mark.parametrize("share", [0.02, 0.1, 0.2, 0.3])
def test_a_minority_is_a_steady_share_of_the_last_steps(share: float, reason: Reason) -> None:
    at = 1 + np.flatnonzero(np.random.default_rng(0).random(5000) < share)
    one = only(judged(5000, at, reason=reason))
    recent = np.count_nonzero(at > 4000)
    assert (one.shape, one.lasts, one.of_steps, len(one.rows)) == (0, True, 1000, recent)
    assert one.level == pytest.approx(50)
    text = tell(one, LEAVES)
    assert text.startswith(f"{recent / 10:.2g} % of the last 1,000 steps had a gradient norm about")
    assert "about 50 times the usual, most often in head, and were" in text
    assert text.endswith("rejected" if reason == Reason.SPIKE_REJECTED else "to the usual size")


def test_a_share_that_is_over_is_told_with_its_steps() -> None:
    one = only(judged(3000, every(10, 400, 1500)))
    assert (one.lasts, one.first, one.last) == (False, 400, 1500)
    assert tell(one, LEAVES).startswith("10 % of the steps from 400 to 1,500 had")


def test_a_share_that_began_late_is_one_of_the_steps_since() -> None:
    one = only(judged(3000, every(10, 2500, 3000)))
    assert tell(one, LEAVES).startswith("10 % of the last 501 steps had")


def test_almost_half_is_a_steady_share_with_a_few_bursts() -> None:
    at = 1 + np.flatnonzero(np.random.default_rng(0).random(5000) < 0.45)
    steady, *others = patterns(judged(5000, at))
    assert (steady.shape, steady.of_steps) == (Shape.STEADY, 1000)
    assert steady.share > 0.3
    assert [one.shape for one in others] == [Shape.BURST]


@pytest.mark.parametrize("gap", [126, 200, 1000])
def test_less_than_one_in_a_hundred_is_isolated(gap: int) -> None:
    assert only(judged(5000, every(gap, 100, 4999))).shape == Shape.ISOLATED


def test_five_times_in_500_steps_are_steady() -> None:
    assert only(judged(5000, every(125, 100, 4999))).shape == Shape.STEADY
    assert only(judged(5000, every(125, 100, 500))).shape == Shape.ISOLATED  # four


def test_a_burst_is_told_with_its_steps() -> None:
    one = only(judged(1000, every(1, 501, 510)))
    assert one.shape == Shape.BURST
    assert tell(one, LEAVES) == (
        "a burst of 10 steps, from 501 to 510, had a gradient norm about 50 times the usual, most "
        "often in head, and was rejected"
    )


def test_bursts_that_come_back_are_no_minority() -> None:
    """Pitfall: where a rollback returns again and again, a share of the steps looks steady."""
    at = [step for first in every(30, 301, 900) for step in range(first, first + 10)]
    one = only(judged(1000, at))
    assert (one.shape, one.times) == (Shape.BURST, 20)
    assert tell(one, LEAVES).startswith("20 bursts of 200 steps in all, between 301 and 880, had")


def test_a_short_gap_does_not_split_a_burst() -> None:
    assert only(judged(1000, [*range(501, 507), *range(509, 516)])).times == 1


def test_an_isolated_step_is_told_with_its_number() -> None:
    one = only(judged(1000, [501], reason=Reason.RECURRING_CLIPPED))
    assert tell(one, LEAVES) == (
        "1 isolated step, 501, had a gradient norm 50 times the usual, largest in head, and was "
        "clipped to the usual size"
    )
    assert tell(only(judged(1000, [300, 700])), ()).startswith(
        "2 isolated steps, between 300 and 700, had a gradient norm about 50 times the usual, most "
        "often in leaf 1, and were"
    )


def test_other_causes_are_apart_and_have_no_level() -> None:
    steps = judged(1000, every(10, 10, 1000), reason=Reason.NONFINITE, level=np.inf)
    steps.reason[500], steps.scale[500], steps.grad_norm[500] = Reason.SPIKE_REJECTED, 0.0, 60.0
    broken, far = patterns(steps)
    assert tell(broken, LEAVES) == (
        "10 % of the last 1,000 steps were rejected, most often in head, because the gradient had "
        "NaN or infinite entries"
    )
    assert far.shape == Shape.ISOLATED
    assert "30 times the usual, largest in trunk" in tell(far, LEAVES)


def test_both_fates_are_counted() -> None:
    steps = judged(1000, every(10, 10, 1000), reason=Reason.RECURRING_CLIPPED)
    steps.reason[[9, 19, 29]], steps.scale[[9, 19, 29]] = Reason.SPIKE_REJECTED, 0.0
    text = tell(only(steps), LEAVES)
    assert text.endswith("97 of them clipped to the usual size, 3 rejected")


def test_the_usual_norm_is_that_of_the_others() -> None:
    """Pitfall: with the median of all steps, half of them at 50 times are one time the usual."""
    at = np.flatnonzero(np.random.default_rng(0).random(1000) < 0.45)
    assert only(judged(1000, at)).level == pytest.approx(50)


def test_without_a_history_the_level_is_unknown() -> None:
    one = only(judged(20, [2]))
    assert "had a gradient norm far above the usual, largest" in tell(one, LEAVES)


@pytest.mark.parametrize("number", [0, 1, 2, 7, 8, 9])
def test_a_log_without_verdicts_has_no_patterns(number: int) -> None:
    steps = judged(number, [])
    unknown = np.full(number, np.nan)
    assert patterns(steps._replace(scale=unknown, grad_norm=unknown)) == ()
    # Everything rejected, from the first step on, is one burst, or a few isolated steps.
    assert len(patterns(judged(number, range(1, number + 1)))) == min(number, 1)


def test_an_older_log_has_only_rejections() -> None:
    """What was let in has a reason that logs did not have before; steps are then only clipped."""
    steps = judged(1000, every(10, 10, 1000), reason=Reason.SPIKE_CLIPPED)
    assert patterns(steps._replace(scale=np.where(steps.scale == 0, 0.1, 1.0))) == ()
