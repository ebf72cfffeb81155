"""A sink for MLflow."""

import math
import time
from collections import deque
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from gradstable._src.telemetry.background import Background
from gradstable._src.telemetry.event import Event
from gradstable._src.telemetry.extras import need
from gradstable._src.telemetry.json_lines import plain
from gradstable._src.telemetry.metrics import metrics_of
from gradstable._src.telemetry.sink import Header

# The most metrics and parameters that MLflow takes in one request.
_METRICS, _PARAMS = 1_000, 100
_EVENTS = 1_000


class MLflow:
    """Send a run to MLflow: to a tracking server, or to a database on this machine.

    Numbers of a step are the metrics ``gradstable/<name>``, sent together at each reading; those
    that your loop reports keep their names. Databases replace infinities by large numbers, so
    numbers that are not finite are left out, and such steps are counted in
    ``gradstable/not_finite``; rejected ones are counted in ``gradstable/rejected``. The settings of
    the log become parameters. Each ``gs.telemetry.Event`` is a line of the artifact
    ``gradstable/events.txt``, which keeps the last 1,000, and the last one is a tag.

    Everything is sent from a thread: MLflow tries for minutes to reach a server that is away, and
    the training does not wait for that. ``close`` waits for at most 30 seconds. MLflow itself tries
    once more when the process ends; ``MLFLOW_HTTP_REQUEST_MAX_RETRIES=2`` shortens that.

    Needs the extra ``gradstable[mlflow]``. Where a run goes is set as usual, with
    ``mlflow.set_tracking_uri`` and ``mlflow.set_experiment``, or in the environment. A local
    database needs the whole package, ``mlflow``.

    Args:
      run: your own run, from ``mlflow.start_run``, or its ID. Default: the active run; without one,
        a new run, started with the name of the log, and ended at the end.
      **settings: arguments for ``mlflow.start_run``: ``experiment_id``, ``tags``,
        ``description``, ...

    Raises:
      ModuleNotFoundError: if ``mlflow`` is not installed; the message says how to install it.

    Example:
      >>> import gradstable as gs
      >>> def open_log(params, file):
      ...     sink = gs.telemetry.MLflow(tags={"team": "vision"})
      ...     return gs.telemetry.Log(params, file, sinks=[sink])
    """

    def __init__(self, run: Any = None, **settings: Any) -> None:
        self._module = need("mlflow", extra="mlflow")
        self._run = run
        self._owned = False
        self._settings = settings
        self._client: Any = None
        self._id = ""
        self._counts = {"gradstable/rejected": 0, "gradstable/not_finite": 0}
        self._events: deque[str] = deque(maxlen=_EVENTS)
        self._failed = False
        self._background = Background("MLflow")

    def open(self, header: Header) -> None:
        """Start a run if there is none, and send the settings."""
        run = self._run or self._module.active_run()
        self._owned = run is None
        if run is None:
            run = self._module.start_run(**{"run_name": header.name, **self._settings})
        self._id = run if isinstance(run, str) else run.info.run_id
        self._client = self._module.MlflowClient()
        # MLflow refuses to change a parameter: a resumed run keeps those that it has.
        known = self._client.get_run(self._id).data.params
        new = [
            self._module.entities.Param(key, str(value))
            for key, value in plain(header.config).items()
            if key not in known
        ]
        for begin in range(0, len(new), _PARAMS):
            self._batch(params=new[begin : begin + _PARAMS])

    def leaves(self, header: Header) -> None:
        """Do nothing: this sink does not name leaves."""
        del header

    def steps(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Send the numbers of all steps together."""
        found: list[tuple[str, float, int]] = []
        for row in rows:
            self._counts["gradstable/rejected"] += row.get("scale") == 0
            self._counts["gradstable/not_finite"] += not math.isfinite(row.get("grad_norm", 0.0))
            values = {**metrics_of(row), **self._counts}
            found += [(name, value, row["step"]) for name, value in values.items()]
        self._send(found)

    def event(self, event: Event) -> None:
        """Write it to the list of events, and to a tag."""
        self._failed |= event.kind == "ended"
        self._tell(event.sentence)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Send numbers of the training loop."""
        self._send([(name, value, step) for name, value in values.items()])

    def note(self, step: int, text: str) -> None:
        """Write it to the list of events, and to a tag."""
        self._tell(f"step {step}: {text}")

    def lost(self, first: int, last: int) -> None:
        """Write it to the list of events, and to a tag."""
        self._tell(f"steps {first} to {last} were not recorded")

    def close(self, step: int) -> None:
        """End the run if it was started here; it has failed if an exception ended the loop."""
        del step
        if not self._background.close() or not self._owned:
            return  # without an answer, MLflow ends its run when the process ends
        status = "FAILED" if self._failed else "FINISHED"
        active = self._module.active_run()
        if active is not None and active.info.run_id == self._id:
            self._module.end_run(status)
        else:
            self._client.set_terminated(self._id, status)

    def _send(self, values: Sequence[tuple[str, float, int]]) -> None:
        now = int(time.time() * 1000)
        metrics = [
            self._module.entities.Metric(name, value, now, step)
            for name, value, step in values
            if math.isfinite(value)
        ]
        for begin in range(0, len(metrics), _METRICS):
            self._batch(metrics=metrics[begin : begin + _METRICS])

    def _batch(self, *, metrics: Sequence[Any] = (), params: Sequence[Any] = ()) -> None:
        steps = (metrics[0].step, metrics[-1].step) if metrics else None
        self._background.put(
            partial(self._client.log_batch, self._id, metrics=metrics, params=params), steps
        )

    def _tell(self, line: str) -> None:
        self._events.append(line)
        text = "".join(f"{one}\n" for one in self._events)
        put, run = self._background.put, self._id
        put(partial(self._client.set_tag, run, "gradstable.last_event", line))
        put(partial(self._client.log_text, run, text, "gradstable/events.txt"))
