"""Summarize a run in a few numbers and one sentence."""

from collections import Counter
from typing import NamedTuple

import numpy as np

from gradstable._src.core.reasons import LET_IN, sentence
from gradstable._src.report.numbers import counted, plain_short
from gradstable._src.telemetry.patterns import Shape, patterns_of, sentence_of
from gradstable._src.telemetry.returns import Returns, returns_of, slowed
from gradstable._src.telemetry.run import Run
from gradstable._src.telemetry.shortened import shortened

# This many bursts are no accident.
_OFTEN = 3
# A run that ends with this many rejections in a row is stuck.
_STUCK = 20


class Verdict(NamedTuple):
    """How a run went.

    Attributes:
      mood: ``good``, ``warn`` or ``bad``, which sets a color and a sign.
      text: a few sentences.
    """

    mood: str
    text: str


class Tile(NamedTuple):
    """One number of the summary strip."""

    name: str
    value: str
    note: str


def tiles(run: Run) -> list[Tile]:
    """Return the numbers of the summary strip."""
    steps, rejected = len(run.step), int(run.rejected.sum())
    cut = int(run.clipped.sum())
    leaf, why = worst_leaf(run)
    return [
        Tile("steps", f"{steps:,}", _seen(run)),
        Tile("accepted", f"{steps - rejected:,}", _share(steps - rejected, steps)),
        Tile("clipped", f"{cut:,}", _share(cut, steps)),
        Tile("rejected", f"{rejected:,}", _share(rejected, steps)),
        Tile("loss", *told_loss(run)),
        Tile("worst leaf", leaf, why),
    ]


@np.errstate(all="ignore")  # it is meant for wild numbers
def verdict(run: Run) -> Verdict:
    """Say in a few sentences how the run went."""
    if not len(run.step):
        return Verdict("warn", f"No step was recorded.{_open(run)}")
    trailing = trailing_rejections(run)
    if trailing >= _STUCK or trailing == len(run.step):
        return Verdict("bad", f"Stuck: {_stuck(run, trailing)}{_open(run)}")
    broken, back = _broken_from(run), returns_of(run)
    if broken is not None:
        when = "at" if broken == run.step[-1] else f"from step {broken:,} to"
        text = f"Broken: loss or gradient was not finite {when} the last step, and was not rejected"
        return Verdict("bad", f"{text}.{_open(run)}")
    if back is not None and back.paused:
        return Verdict("bad", f"Paused: {back.sentence}{_open(run)}")
    troubles = " ".join(_troubles(run, back))
    passed = int(broken_steps(run).sum())
    if passed:
        text = f"Lucky: {counted(passed, 'step')} with a loss or gradient that was not finite"
        also = f" {troubles}" if troubles else ""
        return Verdict("warn", f"{text} got through, and the run went on.{also}{_open(run)}")
    if troubles:
        return Verdict("warn", f"Troubled: {troubles}{_open(run)}")
    if back is not None or run.rejected.any() or _let_in(run).any():
        return Verdict("good", f"Held: {_held(run, back)}{_open(run)}")
    if _finite(run.scale).size:
        text = f"Calm: no step was rejected{_loss_path(run)}."
    else:
        text = f"Finite to the end, without a guard{_loss_path(run)}."
    return Verdict("good", f"{text}{_open(run)}")


def pattern_sentences(run: Run, *, most: int = 5) -> list[str]:
    """Return how rejected steps, and those let in at the usual size, are spread."""
    return [f"{sentence_of(one, run.leaves)}." for one in patterns_of(run)[:most]]


def worst_leaf(run: Run) -> tuple[str, str]:
    """Return the leaf that most rejected steps name, or else the one most often largest."""
    rejected = run.worst_leaf[run.rejected]
    named = rejected if (rejected >= 0).any() else run.worst_leaf
    named = named[named >= 0]
    if not named.size:
        return "–", "none recorded"
    leaf, times = Counter(named.tolist()).most_common(1)[0]
    which = "rejected step" if (rejected >= 0).any() else "step"
    return leaf_name(run, leaf), f"worst in {times:,} of {counted(len(named), which)}"


def leaf_name(run: Run, leaf: int) -> str:
    """Return the path of a leaf, or its number if the file does not name it."""
    return run.leaves[leaf] if 0 <= leaf < len(run.leaves) else f"leaf {leaf}"


def broken_steps(run: Run) -> np.ndarray:
    """Return which accepted steps had a known loss or norm that was not finite."""
    bad = np.zeros(len(run.step), bool)
    for name in ("loss", "grad_norm"):
        if name in run.known:
            bad |= ~np.isfinite(getattr(run, name))
    return bad & ~run.rejected


def told_loss(run: Run) -> tuple[str, str]:
    """Return the loss at both ends of the run as text, and what these numbers are."""
    accepted = run.loss[~run.rejected]
    values = accepted if accepted.size else run.loss
    if not run.has_loss or not values.size:
        return "–", "none recorded"
    ends = _loss_ends(run)
    if ends is None:
        return _short(values[-1]), "of one step" if len(values) == 1 else "of the last step"
    first, last, few = ends
    if not np.isfinite(values[-1]):
        return f"{_short(first)} → {_short(values[-1])}", "at the beginning and at the end"
    note = "first and last accepted" if few == 1 else f"medians of {few} accepted steps"
    return f"{_short(first)} → {_short(last)}", note


def trailing_rejections(run: Run) -> int:
    """Return how many steps were rejected in a row at the end."""
    accepted = np.flatnonzero(~run.rejected)
    return len(run.step) - (int(accepted[-1]) + 1 if accepted.size else 0)


def main_reason(run: Run, where: np.ndarray) -> str:
    """Return the text of the most frequent reason for these steps."""
    return sentence(Counter(run.reason[where].tolist()).most_common(1)[0][0])


def _broken_from(run: Run) -> int | None:
    """Return the first of the final steps that were accepted with a non-finite loss or norm."""
    bad = broken_steps(run)
    # A rejected step changed nothing: it neither breaks a run nor repairs it.
    good = np.flatnonzero(~bad & ~run.rejected)
    where = np.flatnonzero(bad & (np.arange(len(run.step)) > (good[-1] if good.size else -1)))
    return int(run.step[where[0]]) if where.size else None


def _stuck(run: Run, trailing: int) -> str:
    where = np.arange(len(run.step)) >= len(run.step) - trailing
    which = (
        "every step was" if trailing == len(run.step) else f"the last {trailing:,} steps were all"
    )
    return (
        f"{which} rejected, most of them because {main_reason(run, where)}. Parameters are those "
        "of the last good step."
    )


def _troubles(run: Run, back: Returns | None) -> list[str]:
    """Return what a person has to know although the run went on."""
    found = []
    for one in patterns_of(run)[:1]:  # the worst
        if one.shape == Shape.STEADY:
            found.append(f"{sentence_of(one, run.leaves)}: {one.meaning}.")
        elif one.shape == Shape.BURST and one.times >= _OFTEN:
            found.append(f"{sentence_of(one, run.leaves)}.")
    if back is not None and (back.in_vain or back.often):
        found.append(back.sentence)
    if slowed(run):
        found.append(f"Back-off left the steps at {100 * run.lr_factor[-1]:.2g} % of their size.")
    too_long = shortened(run)
    if too_long is not None:
        found.append(too_long.sentence)
    return [*found, f"{_loss_path(run)[2:].capitalize()}."] if found and _loss_path(run) else found


def _let_in(run: Run) -> np.ndarray:
    return run.clipped & np.isin(run.reason, LET_IN)


def _held(run: Run, back: Returns | None) -> str:
    parts = []
    for where, deed in ((run.rejected, "rejected"), (_let_in(run), "clipped to the usual size")):
        number = int(where.sum())
        if number:
            whole = "because" if len(set(run.reason[where].tolist())) == 1 else "mostly because"
            which = f"{number:,}" if parts else f"{number:,} of {counted(len(run.step), 'step')}"
            verb = "was" if number == 1 else "were"
            parts.append(f"{which} {verb} {deed}, {whole} {main_reason(run, where)}")
    text = "; ".join(parts) or f"none of {counted(len(run.step), 'step')} was rejected"
    text = f"{text}, and training went on{_loss_path(run)}."
    return text if back is None else f"{text} {back.sentence}"


def _loss_path(run: Run) -> str:
    ends = _loss_ends(run)
    if ends is None:
        return ""
    first, last, _ = ends
    verb = "fell" if last < first else "rose"
    return f"; the loss {verb} from {_short(first)} to {_short(last)}"


def _loss_ends(run: Run) -> tuple[float, float, int] | None:
    """Return medians of the first and last accepted finite losses, and of how many each."""
    losses = _finite(run.loss[~run.rejected])
    if losses.size < 2:
        return None
    few = max(1, min(20, losses.size // 10))
    return float(np.median(losses[:few])), float(np.median(losses[-few:])), few


def _short(value: float) -> str:
    return plain_short(value) if np.isfinite(value) else "NaN" if np.isnan(value) else "∞"


def _open(run: Run) -> str:
    text = ""
    if run.lost:
        missing = sum(last - first + 1 for first, last in run.lost)
        verb = "was" if missing == 1 else "were"
        text += f" {counted(missing, 'step')} {verb} overwritten before being read, or not written."
    if run.damaged:
        verb = "was" if run.damaged == 1 else "were"
        text += f" {counted(run.damaged, 'line')} of the file {verb} broken and left out"
        text += f" ({run.remarks[0]})." if run.remarks else "."
    elif run.remarks:
        text += f" Problem with the file: {run.remarks[0]}."
    if not run.ended:
        text += " The log was not closed: the run is still going, or its process died."
    return text


def _seen(run: Run) -> str:
    if not len(run.step):
        return "none recorded"
    return f"{run.step[0]:,} to {run.step[-1]:,}"


def _share(part: int, whole: int) -> str:
    return f"{100 * part / whole:.2f} %" if whole else "–"


def _finite(values: np.ndarray) -> np.ndarray:
    return values[np.isfinite(values)]
