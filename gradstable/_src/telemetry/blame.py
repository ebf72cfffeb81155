"""Find which leaf exploded first, and since when it had been growing."""

from typing import NamedTuple

import numpy as np

from gradstable._src.core.numerics import SIGMA_PER_MAD
from gradstable._src.telemetry.patterns import touched_steps
from gradstable._src.telemetry.run import Run

# Out of its usual range: twice its median and six robust standard deviations above it.
_AT_LEAST, _SIGMAS = np.log(2.0), 6.0
# An accepted gradient has exploded if its norm is this many times the usual one.
_EXPLODED = np.log(10.0)


class Blame(NamedTuple):
    """Where an explosion came from.

    Attributes:
      step: the step that broke, or went far beyond the usual range.
      leaf: index of the leaf that left its usual range first.
      path: its path.
      began: the first step at which it was out of that range for good; equal to ``step`` if there
        was no growth before.
      growth: the last finite value of its norm over the usual one; ``inf`` if it broke immediately.
      followed: paths of the leaves that followed, each with its step, in order.
    """

    step: int
    leaf: int
    path: str
    began: int
    growth: float
    followed: tuple[tuple[str, int], ...]

    @property
    def sentence(self) -> str:
        """The finding as a sentence."""
        if self.began == self.step:
            return f"{self.path} exploded first, at step {self.step}, without prior growth."
        grown = f", {self.growth:.3g} times its usual norm" if np.isfinite(self.growth) else ""
        return (
            f"{self.path} exploded first: it had been growing since step {self.began}, and the "
            f"run broke at step {self.step}{grown}."
        )


@np.errstate(all="ignore")  # wild numbers are what it is for
def blame(run: Run, *, at: int | None = None) -> Blame | None:
    """Find the leaf that exploded first, and when its growth began.

    Use it on a recorded run. The norms of leaves are recorded every few steps, so the beginning
    is known to within that many. A leaf is out of its usual range if the log of its norm is above
    ``median + max(log 2, 6 * 1.4826 * MAD)`` of everything recorded up to the explosion; growth
    that lasts for more than half of that is not recognized as growth.

    Args:
      run: a run returned by ``gs.telemetry.read_run``.
      at: the step to explain. Default: the first step that was rejected, had a non-finite gradient,
        or was clipped to the usual size; if there is none, the first whose norm was more than ten
        times the usual one.

    Returns:
      A ``Blame``; ``None`` if nothing exploded.

    Raises:
      ValueError: if ``at`` is not a recorded step.

    Example:
      >>> import tempfile
      >>> import jax.numpy as jnp
      >>> import optax
      >>> import gradstable as gs
      >>> params = {"bias": jnp.ones(3), "kernel": jnp.ones(3)}
      >>> tx = gs.record(gs.guard(optax.sgd(0.1)))
      >>> state = tx.init(params)
      >>> file = tempfile.mkdtemp() + "/run.jsonl"
      >>> with gs.telemetry.Log(params, file) as log:
      ...     for step in range(1, 101):
      ...         gain = 1.2 ** max(step - 60, 0)
      ...         grads = {"bias": jnp.ones(3), "kernel": gain * jnp.ones(3)}
      ...         _, state = tx.update(grads, state, params)
      ...         log(state)
      >>> found = gs.telemetry.blame(gs.telemetry.read_run(file), at=100)
      >>> found.path, found.began
      ("['kernel']", 65)
    """
    if at is None:
        index = _explosion(run)
        if index is None:
            return None
    else:
        matches = np.flatnonzero(run.step == at)
        if not matches.size:
            msg = f"at must be a recorded step, got {at}; recorded steps are {_range(run)}"
            raise ValueError(msg)
        index = int(matches[0])
    step = int(run.step[index])
    end = int(np.searchsorted(run.leaf_steps, step, side="right"))
    until, steps = run.leaf_norms[:end], run.leaf_steps[:end]
    began = {leaf: first for leaf in range(len(run.leaves)) if (first := _began(until[:, leaf]))}
    # In order of time; of two at the same step, the one that had grown more comes first.
    growth = {leaf: _growth(until[:, leaf]) for leaf in began}
    order = sorted(began, key=lambda leaf: (began[leaf], -growth[leaf]))
    if not order or (began[order[0]] == len(steps) - 1 and not np.isfinite(run.grad_norm[index])):
        leaf = int(run.worst_leaf[index])
        return Blame(step, leaf, _path(run, leaf), step, float("inf"), ())
    leaf = order[0]
    return Blame(
        step=step,
        leaf=leaf,
        path=_path(run, leaf),
        began=int(steps[began[leaf]]),
        growth=growth[leaf],
        followed=tuple((_path(run, one), int(steps[began[one]])) for one in order[1:]),
    )


def usual(norms: np.ndarray) -> tuple[float, float]:
    """Return the median of the log norms, and the limit above which a log norm is unusual.

    Zero and non-finite norms do not count.
    """
    logs = np.log(norms[np.isfinite(norms) & (norms > 0)])
    if not logs.size:
        return float("nan"), float("nan")
    center = float(np.median(logs))
    spread = SIGMA_PER_MAD * float(np.median(np.abs(logs - center)))
    return center, center + max(_AT_LEAST, _SIGMAS * spread)


def _explosion(run: Run) -> int | None:
    broken = touched_steps(run) | ~np.isfinite(run.grad_norm)
    center, limit = usual(run.grad_norm)
    with np.errstate(divide="ignore", invalid="ignore"):
        high = np.log(run.grad_norm) > max(limit, center + _EXPLODED)
    found = np.flatnonzero(broken if broken.any() else high)
    return int(found[0]) if found.size else None


def _began(norms: np.ndarray) -> int | None:
    """Return the index from which all norms are unusual; ``None`` if the last one is not."""
    _, limit = usual(norms)
    with np.errstate(divide="ignore", invalid="ignore"):
        normal = np.flatnonzero(np.log(norms) <= limit)
    first = int(normal[-1]) + 1 if normal.size else 0
    # If the first record is already unusual, there is no usual range.
    return first if 0 < first < len(norms) else None


def _growth(norms: np.ndarray) -> float:
    center, _ = usual(norms)
    finite = norms[np.isfinite(norms)]
    return float(np.exp(np.log(finite[-1]) - center)) if finite.size else float("inf")


def _path(run: Run, leaf: int) -> str:
    return run.leaves[leaf] if 0 <= leaf < len(run.leaves) else f"leaf {leaf}"


def _range(run: Run) -> str:
    return f"{run.step[0]} to {run.step[-1]}" if run.step.size else "none"
