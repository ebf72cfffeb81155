"""The host side of telemetry: read the recorder every few steps and write to all sinks."""

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Any, Self

import jax
import numpy as np

from gradstable._src.core.checks import check_size
from gradstable._src.core.paths import leaf_paths
from gradstable._src.telemetry.event import Event
from gradstable._src.telemetry.events import Events
from gradstable._src.telemetry.json_lines import JsonLines
from gradstable._src.telemetry.leaves import recorded_header
from gradstable._src.telemetry.on_event import OnEvent
from gradstable._src.telemetry.outlet import Outlet
from gradstable._src.telemetry.restores import Restores, events_between, restores
from gradstable._src.telemetry.rows import Member, find_record, read_members
from gradstable._src.telemetry.sink import Header, Sink


class Log:
    """Write what ``gs.record`` records to a file, and to any other sinks.

    Call it after every step with the optimizer state. Every ``every`` calls, it fetches what the
    device has recorded since, in one transfer; all other calls return immediately and wait for
    nothing. Use it as a context manager, or call ``close`` at the end, which fetches the rest from
    the last state you passed. If a state holds several runs (``vmap`` over seeds), each gets its
    own file, ``run.member3.jsonl`` next to ``run.jsonl``; equal replicas are written once.

    No sink can end a run: if one of them raises, as on a full disk, there is one warning, and the
    others continue. Only mistakes are raised, and only when the log is created: a path that cannot
    be written, or that another log is writing.

    Args:
      params: the parameters (or their shapes), for the names of leaves; for an ``nnx.Module``, pass
        ``nnx.state(model, nnx.Param)``. The recorder may see fewer leaves, as behind
        ``optax.masked``; the log contains those that it sees.
      path: a file of JSON lines; ``None``: no file.
      sinks: where else to write, see ``gs.telemetry.Sink``.
      every: number of calls between two readings, at least 1 and at most the capacity of the
        recorder. Default: half the capacity, which is 64 unless you changed it.
      name: the name of the run. Default: the name of the file.
      config: settings worth knowing later, such as ``{"b2": 0.999}``; ``gradstable doctor`` looks
        at ``b2``, ``learning_rate``, ``warmup_steps``, ``loss_scale`` and ``compute_dtype``.
      on_event: a function that is called with each ``gs.telemetry.Event``, in order and once: steps
        were rejected, an early warning, a rollback, the run has diverged, ... It is called at a
        reading, in the thread of the loop, so let it return soon. If it raises, there is one
        warning and training continues. To stop the loop from it, set a flag.

    Example:
      >>> import tempfile
      >>> import jax.numpy as jnp
      >>> import optax
      >>> import gradstable as gs
      >>> params = {"w": jnp.ones(3)}
      >>> tx = gs.record(gs.guard(optax.sgd(0.1)))
      >>> state = tx.init(params)
      >>> file = tempfile.mkdtemp() + "/run.jsonl"
      >>> with gs.telemetry.Log(params, file) as log:
      ...     for step in range(3):
      ...         updates, state = tx.update(params, state, params, value=jnp.sum(params["w"]))
      ...         params = optax.apply_updates(params, updates)
      ...         log(state)
      >>> gs.telemetry.read_run(file).loss.round(2).tolist()
      [3.0, 2.7, 2.43]
    """

    def __init__(
        self,
        params: Any,
        path: str | os.PathLike[str] | None = None,
        *,
        sinks: Sequence[Sink] = (),
        every: int | None = None,
        name: str | None = None,
        config: Mapping[str, Any] | None = None,
        on_event: Callable[[Event], object] | None = None,
    ) -> None:
        if every is not None:
            check_size("every", every, at_least=1)
        leaves = jax.tree.leaves(params)
        # Keep only names: the parameters themselves may be donated.
        self._params = jax.tree.map(lambda _: 0, params)
        self._sinks = [*([] if path is None else [JsonLines(path)]), *sinks]
        self._every = every
        self._calls = 0
        self._readings = 0
        self._seen: dict[Member, int] = {}
        self._last: Any = None
        self._restores: list[Restores] = []
        self._events = Events()
        self._checked = False
        header = self._header = Header(
            name=name or (os.path.splitext(os.path.basename(path))[0] if path else "run"),
            leaves=tuple(leaf_paths(params)),
            sizes=tuple(int(np.prod(np.shape(leaf))) for leaf in leaves),
            dtypes=tuple(str(getattr(leaf, "dtype", type(leaf).__name__)) for leaf in leaves),
            config=dict(config or {}),
        )
        self._outlets: list[Outlet] = []
        self._open(header, on_event)

    def __call__(self, opt_state: object) -> None:
        """Note a step; every few calls, read and write."""
        if not self._checked:
            self._check(opt_state)
        self._last = opt_state
        self._calls += 1
        if self._every is not None and self._calls % self._every == 0:
            self.flush()

    def flush(self) -> None:
        """Read and write now everything recorded up to the last state you passed."""
        if self._last is None or find_record(self._last).calls.is_deleted():
            return  # the last one was donated to a step that failed
        apart = len(self._seen) > 1
        found = read_members(self._last, since=self._seen, apart=apart)
        now = restores(self._last)
        self._last = None
        self._readings += 1
        self._seen = {member: rows.count for member, rows in found.items()}
        rows = [row for one in found.values() for row in one.steps]
        events = events_between(self._restores, now, apart=len(found) > 1)
        if any(outlet.takes_events for outlet in self._outlets):
            events += self._events.after(rows, self._header.leaves)
        self._restores = now
        for outlet in self._outlets:
            for lost in dict.fromkeys(one.lost for one in found.values() if one.lost):
                outlet.lost(*lost)
            outlet.steps(rows)
        self._tell(events)

    def rows(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Write steps that no recorder kept: dictionaries with ``step`` and, say, ``loss``."""
        for outlet in self._outlets:
            outlet.steps(rows)
        self._tell(self._events.after(rows, self._header.leaves))

    def scalars(self, step: int, **values: Any) -> None:
        """Write numbers of your own: a metric, the learning rate, the loss scale."""
        if "event" in values:
            msg = (
                "event cannot name a number, since it marks the kind of a line: choose another name"
            )
            raise ValueError(msg)
        numbers = {name: float(value) for name, value in values.items()}
        for outlet in self._outlets:
            outlet.scalars(int(step), numbers)

    def note(self, step: int, text: str) -> None:
        """Write a note about something that happened."""
        for outlet in self._outlets:
            outlet.note(int(step), text)

    def close(self) -> None:
        """Write the remaining steps and close all sinks."""
        try:
            self.flush()
        finally:
            outlets, self._outlets = self._outlets, []
            for outlet in outlets:
                outlet.close(self._step)

    def __enter__(self) -> Self:
        """Return the log itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close, and note the exception that ended the run."""
        if error is None:
            self.close()
            return
        # The failure may have invalidated the last state, and is the error to show.
        with suppress(Exception):
            self.flush()
        text, step = f"ended by {type(error).__name__}: {error}", self._step
        self._tell([Event("ended", step, step, text)])
        with suppress(Exception):
            self.close()

    @property
    def readings(self) -> int:
        """How often it has read."""
        return self._readings

    @property
    def _step(self) -> int:
        """The last step that has been read."""
        return max(self._seen.values(), default=0)

    def _tell(self, events: Sequence[Event]) -> None:
        for event in sorted(events, key=lambda event: event.step):
            for outlet in self._outlets:
                outlet.event(event)

    def _open(self, header: Header, on_event: Callable[[Event], object] | None) -> None:
        outlets = [Outlet(sink) for sink in self._sinks]
        if on_event is not None:
            outlets.append(Outlet(OnEvent(on_event), name="on_event"))
        try:
            for outlet in outlets:
                outlet.open(header)
                self._outlets.append(outlet)
        except BaseException:
            # An open sink holds a file or a connection that the next attempt may need.
            for outlet in self._outlets:
                outlet.close(0)
            raise

    def _check(self, opt_state: object) -> None:
        record = find_record(opt_state)
        capacity = record.rows.shape[-2]
        if self._every is None:
            self._every = max(capacity // 2, 1)
        elif self._every > capacity:
            msg = (
                f"every must not exceed the capacity of the recorder, or steps are lost: "
                f"got every={self._every}, capacity={capacity}"
            )
            raise ValueError(msg)
        header = recorded_header(record, self._params, self._header)
        if header is not None:
            self._header = header
            for outlet in self._outlets:
                outlet.leaves(header)
        # A resumed run continues where it was: earlier steps were written before, and told.
        known = max(int(np.min(record.calls)) - 1, 0)
        self._seen = {(): known}
        self._restores = restores(opt_state)
        if known:
            before = [row for one in read_members(opt_state, since={}).values()
                      for row in one.steps if row["step"] <= known]  # fmt: skip
            self._events.after(before, self._header.leaves)
        self._checked = True
