"""The contents of the tables as text, the same for Markdown and for the page."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from gradstable_gauntlet.beaten import Beat, beaten
from gradstable_gauntlet.harm import harm
from gradstable_gauntlet.league import Share, Spread, Standing, groups, league
from gradstable_gauntlet.measures import CLEAN
from gradstable_gauntlet.results import Results

UNKNOWN = "–"
OURS = "●"

_MEASURES = (
    "loss ratio", "steps lost", "steps to recover", "spike score", "rate sensitivity", "high half",
    "stable decades", "upper edge", "touched when clean", "clean loss",
    "clean loss at rate / 3",
)  # fmt: skip
MEASURES = len(_MEASURES)  # columns at the end of the numbers table that are not about survival

NOTES = (
    "Survived: parameters and final loss are finite, and the loss is at most 1.1 times the best "
    "clean loss of all contestants with the same base in that task (its median over seeds, or that "
    "of the same seed if larger); in percent of all runs with faults, ± a binomial standard error. "
    "Fair weather is no fault, and counted apart. One that "
    "learns less in calm weather has no lower bar to clear. Compare those with the same base: the "
    "fewer there are, the lower is their bar.",
    "By its own: the same, compared with the clean loss of the contestant itself.",
    "Loss ratio: final loss over that of the clean run of the same seed, median over tasks and "
    "storms; in brackets, the smallest and largest value that a single seed would give. Steps lost "
    "(in percent of all steps), steps to recover, and the spike score (percent of training losses "
    "at least 7 sigma away from the mean of the last 1,000; OLMo 2) likewise. All of these "
    "compare a contestant with itself, and do not say how well it learns.",
    "Rate sensitivity: mean over learning rates of the loss above the best one, where no loss "
    "counts more than that at the start (Wortsman et al. 2023, arXiv 2309.14322), relative to what "
    "the best rate learns: 0 is best, 1 worst. High half: only the upper half of the rates.",
    "Stable decades: how far the rate can change with a loss of at most 1.1 times the best; upper "
    "edge: the highest such rate. ≥: the range of rates ends first.",
    "Touched when clean: steps clipped or rejected in calm weather. Clean loss: relative to the "
    "base, both at the rate that is best for the base (medians over the tuning seeds, then over "
    "tasks), and at the next lower rate, about a third.",
)
BEATEN_NOTES = (
    "Cells are pairs of a task and a storm, calm weather included. A peer survives more if the "
    "difference between the shares of surviving seeds exceeds two binomial standard errors. It "
    "ends lower if the difference between the median final losses exceeds twice the pooled median "
    "absolute deviation over seeds. With few seeds and many peers, some of these are due to "
    "chance; none are left out. In brackets: peers with the same base. Any other optimizer may "
    "simply learn the task better.",
)

HARM_NOTES = (
    "Healthy tasks without any fault, in which some batches differ from most, and are to be "
    "learned from. The loss is the final one at the rate that is best for the base, over that of "
    "the base or of a norm limit of 1 around it (clip) at that rate, whichever is lower: median "
    "over the tuning seeds, and in brackets the smallest and the largest. Above 1: it learns less "
    "than with the plainest protection, or with none.",
    "Touched: steps clipped or rejected, at the rate of the contestant itself.",
)


class Table(NamedTuple):
    """A table of text.

    A page that is too narrow for it can split it with ``columns``.

    Attributes:
      header: the names of all columns.
      rows: one text per column in each row; the first names the row.
      marked: whether each row is one of ours.
      words: columns, other than the first, that hold words instead of numbers.
    """

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    marked: Sequence[bool]
    words: Sequence[int] = ()

    def columns(self, first: int, last: int | None = None) -> "Table":
        """Return the table with its names and the other columns from first to last.

        It drops ``words``, so it is only for tables of numbers.
        """
        part = slice(first, last)
        rows = [[row[0], *row[part]] for row in self.rows]
        return Table([self.header[0], *self.header[part]], rows, self.marked)


def numbers(
    results: Results, *, tasks: Iterable[str] | None = None, storms: Iterable[str] | None = None
) -> Table:
    """Return the league as a table with one row per contestant."""
    grouped = groups(results, storms)
    standings = league(results, tasks=tasks, storms=storms)
    header = ["contestant", "survived", "by its own", *grouped, *_MEASURES]
    rows = [_row(one, list(grouped)) for one in standings]
    return Table(header, rows, [one.ours for one in standings])


def _row(one: Standing, grouped: Sequence[str]) -> list[str]:
    return [
        named(one.contestant, ours=one.ours),
        share(one.survival[""]),
        share(one.own),
        *(share(one.survival[group]) for group in grouped),
        spread(one.ratio, 2),
        spread(one.lost, 1, "%"),
        spread(one.recovery, 0),
        spread(one.spikes, 1, "%"),
        fixed(one.sensitivity, 2),
        fixed(one.sensitivity_high, 2),
        ("≥ " if one.open_above else "") + fixed(one.decades, 1),
        ("≥ " if one.open_above else "") + short(one.upper_edge),
        fixed(one.false_interventions, 1, "%"),
        fixed(one.clean_cost, 1, "%", sign=True),
        fixed(one.clean_cost_below, 1, "%", sign=True),
    ]


def beats(
    results: Results, *, ours: Iterable[str] | None = None, tasks: Iterable[str] | None = None
) -> Table:
    """Return where something beats one of ours, with a row for each of ours and group of storms.

    By default, ``ours`` are those whose base most peers share.
    """
    chosen = list(results.tasks if tasks is None else tasks)
    names = _held_against_most(results) if ours is None else list(ours)
    anyone = beaten(results, ours=names, tasks=chosen)
    kin = beaten(results, ours=names, tasks=chosen, same_base=True)
    rows = []
    for name in names:
        for group, storms in {"calm weather": [CLEAN], **groups(results)}.items():
            found = [one for one in anyone if one.ours == name and one.storm in storms]
            if found:
                same = [one for one in kin if one.ours == name and one.storm in storms]
                cells = sum(
                    storm in cell.fates
                    for cell in results.cells
                    if cell.contestant == name and cell.task in chosen
                    for storm in storms
                )
                rows.append([named(name, ours=True), group, *_described(found, same, cells)])
    header = ["ours", "storms", "cells", "peer survives more", "peer ends lower", "mostly", "worst"]
    return Table(header, rows, [True] * len(rows), words=(1, 5, 6))


def harms(results: Results, *, tasks: Iterable[str] | None = None) -> Table:
    """Return the harm done in healthy tasks, with a row per contestant and task."""
    found = harm(results, tasks=tasks)
    ours = [bool(results.contestants[one.contestant]["ours"]) for one in found]
    rows = [
        [
            named(one.contestant, ours=our),
            one.task,
            spread(one.loss, 2),
            fixed(one.touched, 1, "%"),
        ]
        for one, our in zip(found, ours, strict=True)
    ]
    header = ["contestant", "task", "loss / better of base and clip", "touched"]
    return Table(header, rows, ours, words=(1,))


def _held_against_most(results: Results) -> list[str]:
    ours = {name: about["base"] for name, about in results.contestants.items() if about["ours"]}
    peers = Counter(about["base"] for about in results.contestants.values() if not about["ours"])
    base, _ = max(peers.items(), key=lambda pair: pair[1], default=("", 0))
    return [name for name, own in ours.items() if own == base] or list(ours)


def _described(found: list[Beat], same: list[Beat], cells: int) -> list[str]:
    def count(measure: str) -> str:
        every, kin = (sum(one.measure == measure for one in some) for some in (found, same))
        return f"{every} ({kin})" if every else "0"

    by, _ = Counter(one.by for one in found).most_common(1)[0]
    one = max(found, key=_badness)
    if one.measure == "survival":
        worst = f"{100 * one.our_value:.0f} % against {100 * one.their_value:.0f} % survive"
    else:
        worst = f"loss {short(one.our_value)} against {short(one.their_value)}"
    where = f"{one.task}, {one.storm}: {worst} ({one.by})"
    return [str(cells), count("survival"), count("loss"), by, where]


def _badness(one: Beat) -> tuple[bool, float]:
    if one.measure == "survival":
        return True, one.their_value - one.our_value
    return False, one.our_value / one.their_value if one.their_value > 0 else math.inf


def provenance(made: Mapping[str, Any]) -> dict[str, str]:
    """Return how the results were made, in words: versions, machine, command, duration."""
    found = {}
    for name, value in made.items():
        if name == "seconds":
            found["took"] = duration(float(value))
        elif isinstance(value, Mapping):
            found[name] = ", ".join(f"{key} {one}" for key, one in value.items())
        else:
            found[name] = str(value)
    return found


def duration(seconds: float) -> str:
    """Return a time in words: 40 s, 12 min, 1 h 24 min."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"


def named(name: str, *, ours: bool) -> str:
    """Return a name, marked if it is ours."""
    return f"{OURS} {name}" if ours else name


def share(one: Share) -> str:
    """Return a share of survivors with its error."""
    return f"{one.percent:.0f} ± {one.error:.0f}" if one.runs else UNKNOWN


def spread(one: Spread, digits: int, unit: str = "") -> str:
    """Return a median with the range of single seeds."""
    if math.isnan(one.value):
        return UNKNOWN
    low, value, high = (fixed(each, digits) for each in (one.low, one.value, one.high))
    unit = f" {unit}" if unit else ""
    return f"{value}{unit}" if low == high else f"{value}{unit} ({low} to {high})"


def fixed(value: float, digits: int, unit: str = "", *, sign: bool = False) -> str:
    """Return a number with this many decimals; large numbers are shortened."""
    if math.isnan(value):
        return UNKNOWN
    if math.isinf(value):
        return "∞"
    value = round(value, digits) or 0.0  # not -0.0
    text = f"{value:.{digits}f}" if abs(value) < 1e4 else short(value)
    return f"{'+' if sign and value > 0 else ''}{text} {unit}".rstrip().replace("-", "−")


def short(value: float) -> str:
    """Return a number with three digits."""
    if math.isnan(value):
        return UNKNOWN
    return "∞" if math.isinf(value) else f"{value:.3g}"
