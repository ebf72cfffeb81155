"""A sink for Trackio."""

from collections.abc import Mapping, Sequence
from typing import Any

from gradstable._src.telemetry.event import Event
from gradstable._src.telemetry.extras import need
from gradstable._src.telemetry.json_lines import plain
from gradstable._src.telemetry.metrics import metrics_of
from gradstable._src.telemetry.sink import Header


class Trackio:
    """Send a run to Trackio, on this machine, on a server of yours, or in a Space.

    Numbers of a step go to ``gradstable/<name>`` with the number of the step; those that your loop
    reports keep their names. ``gradstable/rejected`` counts rejected steps. Each
    ``gs.telemetry.Event`` is an alert: Trackio prints it, shows it in the dashboard, and posts it
    to ``webhook_url`` if you pass one.

    Needs the extra ``gradstable[trackio]``.

    Args:
      run: your own run, from ``trackio.init``. Default: a new run, started with the name and the
        settings of the log, and finished at the end.
      **settings: arguments for ``trackio.init``: ``project`` (``gradstable`` if you name none),
        ``space_id``, ``server_url``, ``webhook_url``, ...

    Raises:
      ModuleNotFoundError: if ``trackio`` is not installed; the message says how to install it.

    Example:
      >>> import gradstable as gs
      >>> def open_log(params, file):
      ...     sink = gs.telemetry.Trackio(project="digits")
      ...     return gs.telemetry.Log(params, file, sinks=[sink])
    """

    def __init__(self, run: Any = None, **settings: Any) -> None:
        self._module = need("trackio", extra="trackio")
        self._run = run
        self._owned = run is None
        self._settings = settings
        self._rejected = 0

    def open(self, header: Header) -> None:
        """Start a run if none was passed."""
        if self._run is None:
            config = plain(header.config)
            settings = {"project": "gradstable", "name": header.name, "config": config}
            self._run = self._module.init(**{**settings, **self._settings})

    def leaves(self, header: Header) -> None:
        """Do nothing: this sink does not name leaves."""
        del header

    def steps(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Send the numbers of each step."""
        for row in rows:
            self._rejected += row.get("scale") == 0
            values = {**metrics_of(row), "gradstable/rejected": self._rejected}
            self._run.log(values, step=row["step"])

    def event(self, event: Event) -> None:
        """Send an alert."""
        levels = self._module.AlertLevel
        level = levels.ERROR if event.is_serious else levels.WARN
        self._run.alert(event.title, event.sentence, level=level, step=event.step)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Send numbers of the training loop."""
        self._run.log(dict(values), step=step)

    def note(self, step: int, text: str) -> None:
        """Send it as an alert for information."""
        self._run.alert("gradstable: note", text, level=self._module.AlertLevel.INFO, step=step)

    def lost(self, first: int, last: int) -> None:
        """Send it as an alert for information."""
        self.note(first, f"steps {first} to {last} were not recorded")

    def close(self, step: int) -> None:
        """Finish the run, unless you passed it."""
        del step
        if self._owned:
            self._run.finish()
