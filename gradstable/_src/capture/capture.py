"""Keep the last batches of a training loop, and write the batch of a bad step to disk."""

import os
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

import jax

from gradstable._src.capture.describe import described
from gradstable._src.capture.folders import Shelf
from gradstable._src.capture.trees import Encoded, encode
from gradstable._src.capture.watch import Event, Watch
from gradstable._src.core.checks import check_number, check_size
from gradstable._src.core.find import state_in
from gradstable._src.core.tree_checks import first_deleted
from gradstable._src.health.explain import explain
from gradstable._src.telemetry.json_lines import plain
from gradstable._src.telemetry.telling import reason_of, tell

_EVERY = 64
# Of bad steps of one kind, each within this many calls of the last, this many are kept: a run that
# is rejected forever must not push out the capture of the step with which it began.
_GAP, _MOST_IN_SERIES = 64, 4
# Room for the description of an event, in bytes.
_DESCRIPTION = 16384


class _Kept(NamedTuple):
    number: int
    step: int | None
    batch: Any
    rng: Any


class Capture:
    """Keep the last batches, and write that of a bad step to disk; see ``gs.capture``.

    Attributes:
      folders: the folders that were written, the oldest first; some may have made room since.
    """

    __module__ = "gradstable"

    def __init__(
        self,
        shelf: Shelf,
        *,
        every: int | None,
        keep: int | None,
        max_bytes: int,
        clipped_below: float,
        config: Mapping[str, Any],
    ) -> None:
        self.folders: list[Path] = []
        self._shelf = shelf
        self._every, self._keep, self._max_bytes = every, keep, max_bytes
        self._config = plain(config)
        self._watch = Watch(clipped_below=clipped_below)
        self._kept: deque[_Kept] = deque()
        self._number = 0
        self._state: Any = None
        self._params: Any = None
        self._series: dict[str, tuple[int, int]] = {}  # per kind: the last one, and how many
        self._told: set[str] = set()
        self._failures = 0

    def __call__(
        self,
        opt_state: object,
        batch: Any,
        *,
        params: Any = None,
        rng: Any = None,
        step: int | None = None,
    ) -> None:
        """Note a step that was made; every few calls, look for bad ones, and write them.

        Args:
          opt_state: the state that the step returned; also an ``nnx.Optimizer`` or ``TrainState``.
          batch: the batch of the step: a tree of arrays, strings, and numbers.
          params: the parameters that the step returned. Default: those of a ``TrainState``.
          rng: the random key of the step, if it had one.
          step: its number in your loop. Default: its number for the guard.
        """
        if not self._number:
            self._begin(opt_state)
        self._number += 1
        self._kept.append(_Kept(self._number, step, batch, rng))
        self._state = opt_state
        self._params = getattr(opt_state, "params", None) if params is None else params
        if self._number == 1 or self._number % (self._every or 1) == 0:
            self.flush()

    def flush(self) -> None:
        """Look now for bad steps up to the last call, and write them. Never raises."""
        state, self._state = self._state, None
        params, self._params = self._params, None
        if state is None:
            return
        try:
            events = self._watch.read(state, self._number)
        except Exception as error:
            self._failed(error)
            return
        for event in filter(self._wanted, events):
            try:
                self._write(event, state, params)
            except Exception as error:
                self._failed(error)

    def close(self) -> None:
        """Look for bad steps since the last reading, and drop the batches."""
        self.flush()
        self._kept.clear()
        if self._failures > 1:
            tell(f"{self._failures} captures could not be written.")

    def __enter__(self) -> Self:
        """Return the capture itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close; what ended the loop is not hidden."""
        with suppress(Exception):
            self.close()

    def _begin(self, opt_state: Any) -> None:
        capacity = self._watch.capacity(opt_state)
        if not capacity:
            msg = (
                "no guard, rollback, or recorder found in this optimizer state: wrap your "
                "optimizer, as in gradstable.guard(optax.adamw(3e-4)), and pass its state"
            )
            raise ValueError(msg)
        if self._every is not None and self._every > capacity:
            msg = (
                "every must not exceed the capacity of the recorder, or steps are lost: "
                f"got every={self._every}, capacity={capacity}"
            )
            raise ValueError(msg)
        self._every = self._every or int(min(_EVERY, capacity))
        self._kept = deque(maxlen=self._keep or self._every)

    def _wanted(self, event: Event) -> bool:
        last, number = self._series.get(event.kind, (-_GAP - 1, 0))
        number = number + 1 if event.span[0] - last <= _GAP else 1
        self._series[event.kind] = (event.span[1], number)
        return number <= _MOST_IN_SERIES

    def _write(self, event: Event, state: Any, params: Any) -> None:
        first, last = event.span
        found = [kept for kept in self._kept if first <= kept.number <= last]
        if len(found) <= last - first:
            self._tell_once("keep", "some batches were not kept for long enough: raise keep")
        found = [kept for kept in found if not _is_gone(kept.batch)]
        if not found:
            text = (
                "the batch of a bad step was donated to it, so that it could not be kept: leave "
                "it out of donate_argnums, or pass a copy that is still on the host"
            )
            self._tell_once("donated", text)
            return
        one = found[-1]
        trees = {"batch": encode(one.batch if len(found) == 1 else [each.batch for each in found])}
        if one.rng is not None and not _is_gone(one.rng):
            trees["rng"] = encode(one.rng)
        room = self._max_bytes - _DESCRIPTION - sum(tree.nbytes for tree in trees.values())
        if room < 0:
            text = f"a batch alone has more than max_bytes, {self._max_bytes:,} bytes"
            self._tell_once("large", text)
            return
        left_out = [f"{part}{path}" for part, tree in trees.items() for path in tree.left_out]
        if left_out:
            text = f"{left_out[0]} was left out: only arrays and plain values can be kept"
            self._tell_once("left out", text)
        for part, tree in _around(params, state).items():
            room -= tree.nbytes
            if room < 0:
                left_out.append(f"{part} ({tree.nbytes:,} bytes are too many for max_bytes)")
                break
            trees[part] = tree
            left_out += [f"{part}{path}" for path in tree.left_out]
        step = event.call if one.step is None else int(one.step)
        info = {
            **described(event, trees, left_out),
            "step": step,
            "exact": event.unchanged,
            "later": self._number - last,
            "explanation": self._explained(state, params if "params" in trees else None),
            "config": self._config,
        }
        self.folders.append(self._shelf.put(f"step-{step:08d}-{event.kind}", info, trees))

    def _explained(self, state: Any, params: Any) -> str:
        # Of arrays of several processes it is a computation of all, and one may not come this far.
        return explain(state, params) if jax.process_count() == 1 else ""

    def _failed(self, error: Exception) -> None:
        self._failures += 1
        self._tell_once("failed", f"a capture could not be written: {reason_of(error)}")

    def _tell_once(self, about: str, text: str) -> None:
        if about not in self._told:
            self._told.add(about)
            tell(f"gradstable.capture: {text}. Training continues.")


def capture(
    folder: str | os.PathLike[str],
    *,
    every: int | None = None,
    keep: int | None = None,
    clipped_below: float = 0.1,
    max_events: int = 16,
    max_bytes: int = 2**30,
    config: Mapping[str, Any] | None = None,
) -> Capture:
    """Keep the last batches, and write the batch of a bad step to disk, to look at it later.

    Call the result after every step with the optimizer state and the batch. It keeps the last
    batches as they are, without a copy. Every ``every`` calls, it reads the counters of the guard
    in one transfer; all other calls wait for nothing. If a step was rejected, clipped hard, or was
    the sign of a divergence (an early warning of ``gs.record``, a rollback), it writes a folder
    with the batch, the random key, parameters and optimizer state, why, and when.
    ``gs.read_capture`` reads it, and so do ``gradstable autopsy`` and ``gradstable replay``.

    With ``gs.record`` in the state, every bad step since the last reading is known. Without, only
    the last rejected one, and those right before it.

    Parameters and state are those of the reading. A rejected step changes nothing: if no other
    has changed them since, they are those of that step, which can be run again exactly
    (``Captured.exact``). ``every=1`` makes sure of that, and waits for every step. For a step that
    was clipped hard, and for a divergence, they are always those after it.

    Nothing that goes wrong while it writes ends a run: there is one warning. A folder appears
    complete or not at all, even if the process is killed. Of bad steps that follow one another,
    the first four are kept. In a job with several processes, each writes what it holds. Where a
    step takes several calls, as with ``gs.accumulate``, make ``every`` a multiple of their number:
    then all batches of the step are kept.

    Args:
      folder: where to write, with one folder for each bad step.
      every: number of calls between two readings, at least 1, and at most the capacity of the
        recorder, if there is one. Default 64, as for ``Log``, or that capacity if it is smaller.
        Each reading waits for the step, so that its computation hides nothing of the next call.
      keep: how many batches are kept, at least ``every``. Default: ``every``. Batches on the
        device stay there for as long: if they are large, lower both, or pass those of the host.
      clipped_below: the factor on the gradient below which a step counts as clipped hard, in
        ``[0, 1]``. Default 0.1, a norm of ten times the limit; 0: only rejected steps count.
      max_events: how many folders are kept, at least 1; the oldest makes room. Default 16.
      max_bytes: how large they may be together. Optimizer state and parameters that do not fit are
        left out. Default 1 GiB.
      config: what to write beside each batch, such as the path of the checkpoints.

    Returns:
      A ``Capture``. Use it as a context manager, or call ``close`` at the end. Batches that were
      donated are lost, and those that a loader overwrites must be copied before.

    Raises:
      ValueError: if a number is out of range.
      OSError: if the folder cannot be created.

    Example:
      >>> import tempfile
      >>> import jax.numpy as jnp
      >>> import optax
      >>> import gradstable as gs
      >>> params = {"w": jnp.ones(2)}
      >>> tx = gs.record(gs.guard(optax.sgd(0.1)))
      >>> state = tx.init(params)
      >>> with gs.capture(tempfile.mkdtemp()) as capture:
      ...     for batch in ({"x": jnp.ones(2)}, {"x": jnp.array([1.0, jnp.nan])}):
      ...         gradient = {"w": params["w"] * batch["x"]}
      ...         updates, state = tx.update(gradient, state, params)
      ...         params = optax.apply_updates(params, updates)
      ...         capture(state, batch, params=params)
      >>> found = gs.read_capture(capture.folders[0])
      >>> found.step, found.kind, found.batch["x"].tolist()
      (2, 'rejected', [1.0, nan])
    """
    if every is not None:
        check_size("every", every, at_least=1)
    if keep is not None:
        check_size("keep", keep, at_least=every or _EVERY)
    check_number("clipped_below", clipped_below, at_least=0, at_most=1)
    check_size("max_events", max_events, at_least=1)
    check_size("max_bytes", max_bytes, at_least=1)
    return Capture(
        Shelf(Path(folder), max_events=max_events, max_bytes=max_bytes),
        every=every,
        keep=keep,
        max_bytes=max_bytes,
        clipped_below=clipped_below,
        config=config or {},
    )


def _is_gone(tree: Any) -> bool:
    return first_deleted(tree) is not None


def _around(params: Any, state: Any) -> dict[str, Encoded]:
    """Return parameters and optimizer state, if they are there, the smaller part first."""
    trees = {"params": params, "opt_state": state_in(state)}
    return {
        part: encode(tree)
        for part, tree in trees.items()
        if tree is not None and not _is_gone(tree)
    }
