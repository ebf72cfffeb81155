"""The map of gradient norms: one row per leaf, from the first step to the last."""

import re
from collections import Counter

import numpy as np

from gradstable._src.report.chart import Key, Panel
from gradstable._src.report.heat import Heat, drawn
from gradstable._src.telemetry.run import Run

MOST_LEAVES = 40
NAME_LETTERS = 32


def leaf_norms(run: Run) -> Panel:
    """Return the map of the gradient norms of all leaves, or of those that matter most."""
    title = "Gradient norm of each leaf"
    if not len(run.leaf_steps) or not len(run.leaves):
        label = "No leaf norms were recorded."
        return Panel("leaves", title, "", label)
    rows = chosen(run)
    reading = (
        "One row per leaf, in tree order; each color is the largest norm within its stretch of "
        "steps."
    )
    if len(rows) < len(run.leaves):
        reading += (
            f" Shown are {len(rows)} of {len(run.leaves)} leaves: those that were not finite, then "
            "those named by rejected steps, then those with the largest norms."
        )
    shown = run.leaf_norms if len(rows) == len(run.leaves) else run.leaf_norms[:, rows]
    broken = ~np.isfinite(shown)
    keys = [Key("line", "bad", "NaN or infinite")] if broken.any() else []
    names = [short_path(run.leaves[row], letters=NAME_LETTERS) for row in rows]
    heat = drawn(Heat(run.leaf_steps, shown, broken, names, "gradient norm"))
    largest = rows[int(np.argmax(_largest(shown)))]
    label = (
        f"Gradient norms of {len(rows)} leaves at {len(run.leaf_steps):,} steps. The largest is in "
        f"{run.leaves[largest]}; {int(broken.any(axis=0).sum())} leaves were NaN or infinite at "
        "some step."
    )
    return Panel("leaves", title, reading, label, keys, [heat])


def chosen(run: Run, *, most: int = MOST_LEAVES) -> list[int]:
    """Return which leaves to show, in tree order: at most this many, the most relevant ones."""
    broken = np.count_nonzero(~np.isfinite(run.leaf_norms), axis=0)
    named = Counter(run.worst_leaf[run.rejected].tolist())
    largest = _largest(run.leaf_norms)

    def weight(leaf: int) -> tuple[int, int, float]:
        return int(broken[leaf]), named[leaf], float(largest[leaf])

    ranked = sorted(range(len(run.leaves)), key=weight, reverse=True)
    return sorted(ranked[:most])


def short_path(path: str, *, letters: int) -> str:
    """Return a short path of a leaf: ``['a']['b']`` is ``a/b``, and long ones lose the middle.

    Example:
      >>> short_path("['params']['Dense_0']['kernel']", letters=18)
      'params/D…_0/kernel'
    """
    keys = re.findall(r"\['([^']*)'\]|\[([^\]]*)\]|\.?([^.\[\]]+)", path)
    text = "/".join("".join(key) for key in keys) or path
    if len(text) <= letters:
        return text
    tail = max(letters - letters // 2 - 1, letters - 1 - text.index("/") - 2) if "/" in text else 0
    tail = min(max(tail, (letters - 1) // 2), letters - 2)
    return f"{text[: letters - 1 - tail]}…{text[-tail:]}"


def _largest(norms: np.ndarray) -> np.ndarray:
    """Return the largest finite norm of each leaf, -1 where there is none."""
    return np.max(norms, axis=0, initial=-1.0, where=np.isfinite(norms))
