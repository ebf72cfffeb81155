"""Everything that belongs beside a training loop, in one object."""

import importlib.util
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import jax
import numpy as np
import optax

from gradstable._src.capture.capture import Capture, capture
from gradstable._src.core.checks import check_size, check_transform
from gradstable._src.core.find import find_all
from gradstable._src.core.ledger import Ledger
from gradstable._src.health.check import check
from gradstable._src.telemetry.console import Console
from gradstable._src.telemetry.event import Event
from gradstable._src.telemetry.json_lines import JsonLines
from gradstable._src.telemetry.log import Log
from gradstable._src.telemetry.sink import Sink
from gradstable._src.telemetry.state import RecordState
from gradstable._src.telemetry.telling import reason_of, tell

# How often a loop without a recorder is read; as seldom as one with a recorder.
_EVERY = 64


class Watch:
    """Log, panel, capture, check and report of one run; see ``gs.watch``.

    Attributes:
      log: what writes the file and calls the sinks.
      capture: what writes batches; ``None`` if that was not asked for.
      report: the page that is written at the end; ``None`` if that was not asked for.
    """

    __module__ = "gradstable"

    def __init__(
        self,
        log: Log,
        *,
        capture: Capture | None,
        file: Path | None,
        report: Path | None,
        patience: int,
        has_panel: bool,
    ) -> None:
        self.log, self.capture, self.report = log, capture, report
        self._file, self._patience = file, patience
        self._has_panel = has_panel
        self._calls = 0
        self._recorded = self._guarded = False
        self._first = 0
        self._losses: list[tuple[int, Any]] = []
        self._scalars: list[tuple[int, dict[str, Any]]] = []

    def __call__(
        self,
        opt_state: object,
        params: Any = None,
        *,
        loss: Any = None,
        batch: Any = None,
        rng: Any = None,
        **scalars: Any,
    ) -> None:
        """Note a step that was made; every few calls, read, write, and check.

        Args:
          opt_state: the state that the step returned; also an ``nnx.Optimizer`` or ``TrainState``.
          params: the parameters that the step returned, for captures and messages.
          loss: the loss of the step. Needed only if no ``gs.record`` has it.
          batch: the batch of the step, if batches are captured.
          rng: the random key of the step, to be captured with it.
          **scalars: numbers of your own. They are fetched only when the state is read.

        Raises:
          TrainingDiverged: when the run cannot continue, as ``gs.check`` does.
          ValueError: if there is nothing to write, no batch to capture, or a number is an array.
        """
        _check_numbers({**scalars, "loss": loss})
        if not self._calls:
            self._begin(opt_state, loss)
        self._calls += 1
        step = self._first + self._calls
        if scalars:
            self._scalars.append((step, scalars))
        if self.capture is not None:
            if batch is None:
                msg = "batches are to be captured, but none was passed: pass batch="
                raise ValueError(msg)
            self.capture(opt_state, batch, params=params, rng=rng)
        if not self._recorded:
            self._losses.append((step, loss))
            if self._calls % _EVERY and not self._is_early():
                return
            self._write_losses()
        else:
            readings = self.log.readings
            self.log(opt_state)
            if readings == self.log.readings and self._is_early():
                self.log.flush()
            if readings == self.log.readings:
                return
        self._write_scalars()
        if self._guarded:
            check(opt_state, params, patience=self._patience)

    def close(self) -> None:
        """Write what is left, close the file, and make the report."""
        self._finish(self.log.close)

    def __enter__(self) -> Self:
        """Return the watch itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close, also after Ctrl-C or a crash, and note what ended the run."""
        self._finish(lambda: self.log.__exit__(kind, error, trace))

    def _begin(self, opt_state: object, loss: Any) -> None:
        records = find_all(opt_state, RecordState)
        self._recorded, self._guarded = bool(records), bool(find_all(opt_state, Ledger))
        if records:
            # A run that is resumed goes on counting; the first call is after a step.
            self._first = max(int(np.min(records[0][1].calls)) - 1, 0)
        elif loss is None:
            msg = (
                "there is no recorder in this optimizer state, and no loss was passed: wrap the "
                "whole optimizer, as in gradstable.record(optax.adamw(3e-4)), or pass loss="
            )
            raise ValueError(msg)

    def _is_early(self) -> bool:
        """Whether a panel would be blank for long without a reading."""
        return self._has_panel and self._calls < _EVERY and not self._calls & (self._calls - 1)

    def _write_losses(self) -> None:
        waiting, self._losses = self._losses, []
        numbers = jax.device_get([loss for _, loss in waiting])
        rows = zip(waiting, numbers, strict=True)
        self.log.rows([{"step": step, "loss": float(loss)} for (step, _), loss in rows])

    def _write_scalars(self) -> None:
        waiting, self._scalars = self._scalars, []
        numbers = jax.device_get([values for _, values in waiting])
        for (step, _), values in zip(waiting, numbers, strict=True):
            self.log.scalars(step, **values)

    def _finish(self, close: Callable[[], object]) -> None:
        with suppress(Exception):  # values of a step that failed cannot be fetched
            if self._losses:
                self._write_losses()
            self._write_scalars()
        try:
            close()
        finally:
            if self.capture is not None:
                self.capture.close()
            self._tell_the_end()

    def _tell_the_end(self) -> None:
        """Write the report, and say how the run went; never raises."""
        if self._file is None or self.report is None:
            return
        try:
            from gradstable._src.report.page import render
            from gradstable._src.report.summary import verdict
            from gradstable._src.telemetry.run import read_run

            run = read_run(self._file)
            self.report.write_text(render([run]), encoding="utf-8")
        except Exception as error:
            tell(f"the report {self.report} could not be written: {reason_of(error)}.")
            return
        print(f"{run.name}: {verdict(run).text} See {self.report}.")


def _check_numbers(given: Mapping[str, Any]) -> None:
    """Raise ``ValueError`` now for what could not be written later."""
    for name, value in given.items():
        if np.ndim(value):
            msg = f"{name} must be a number, got shape {np.shape(value)}: take its mean"
            raise ValueError(msg)


def watch(
    tx: optax.GradientTransformation,
    params: Any,
    path: str | os.PathLike[str] | None = None,
    *,
    resume: bool = False,
    steps: int | None = None,
    panel: bool | Console | None = None,
    sinks: Sequence[Sink] = (),
    on_event: Callable[[Event], object] | None = None,
    capture_to: str | os.PathLike[str] | None = None,
    report: bool = True,
    patience: int = 200,
    every: int | None = None,
    config: Mapping[str, Any] | None = None,
) -> Watch:
    """Watch a run: log it, show it, keep bad batches, stop when it is lost, and report at the end.

    Use it around any training loop, and call it after every step. It is ``gs.telemetry.Log``,
    ``gs.telemetry.Console``, ``gs.capture``, ``gs.check`` and ``gradstable report`` in the order
    that is right. Leaving the block closes the file and writes the report, also after Ctrl-C, an
    error, or a run that cannot continue.

    It costs one transfer of a few numbers every 64 steps, and waits for nothing in between. With a
    panel, it also reads after 1, 2, 4, ... steps in the beginning. No trouble with a file, a sink,
    or the report ends a training.

    It works for an optimizer without a recorder too, such as a bare one for comparison: pass
    ``loss=`` in every call. The log then has only the losses.

    Args:
      tx: the optimizer, whose description is kept in the log.
      params: the parameters (or their shapes), for the names of leaves; for an ``nnx.Module``, pass
        ``nnx.state(model, nnx.Param)``.
      path: a file of JSON lines, as for ``gs.telemetry.Log``; the report has the same name and ends
        in ``.html``. An existing file is overwritten. Default: nothing is written.
      resume: whether to append to the file instead, as after a restart from a checkpoint.
      steps: how many steps the run will have, for the time that is left.
      panel: whether to show a panel in the terminal, which needs the extra ``gradstable[console]``,
        or a ``gs.telemetry.Console``. Default: if there is a terminal and ``rich`` is installed.
      sinks: where else to write, see ``gs.telemetry.Sink``.
      on_event: called once for each ``gs.telemetry.Event``.
      capture_to: a folder for the batches of bad steps, as for ``gs.capture``. Default: none are
        kept. For more settings, use ``gs.capture`` itself.
      report: whether to write a report at the end, if there is a file. To look at it before, run
        ``gradstable report run.jsonl --watch``.
      patience: rejected steps in a row after which the run cannot continue, as for ``gs.check``.
      every: calls between two readings, as for ``gs.telemetry.Log``.
      config: settings worth knowing later, as for ``gs.telemetry.Log``.

    Returns:
      A ``gs.Watch``, to be used in a ``with`` statement.

    Raises:
      TypeError: if ``tx`` is not a transform.
      ValueError: if a number is out of range.
      OSError: if a file or folder cannot be written.

    Example:
      >>> import tempfile
      >>> import jax.numpy as jnp
      >>> import optax
      >>> import gradstable as gs
      >>> tx = gs.record(gs.guard(optax.sgd(0.1)))
      >>> params = {"w": jnp.ones(3)}
      >>> state = tx.init(params)
      >>> with gs.watch(tx, params, tempfile.mkdtemp() + "/run.jsonl", report=False) as watch:
      ...     for step in range(3):
      ...         updates, state = tx.update(params, state, params, value=jnp.sum(params["w"]))
      ...         params = optax.apply_updates(params, updates)
      ...         watch(state, params)
    """
    check_transform("tx", tx)
    check_size("patience", patience, at_least=1)
    if steps is not None:
        check_size("steps", steps, at_least=1)
    if panel is None:
        panel = sys.stdout.isatty() and importlib.util.find_spec("rich") is not None
    file = None if path is None else Path(path)
    if panel is True:
        panel = Console(steps=steps)
    files = [] if file is None else [JsonLines(file, append=resume)]
    log = Log(
        params,
        sinks=[*files, *sinks, *([panel] if panel else [])],
        every=every,
        name=None if file is None else file.stem,
        config={"optimizer": repr(tx), **(config or {})},
        on_event=on_event,
    )
    return Watch(
        log,
        capture=None if capture_to is None else capture(capture_to, config=config or {}),
        file=file,
        report=file.with_suffix(".html") if file is not None and report else None,
        patience=patience,
        has_panel=bool(panel),
    )
