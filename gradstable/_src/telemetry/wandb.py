"""A sink for Weights & Biases."""

from collections.abc import Mapping, Sequence
from typing import Any

from gradstable._src.core.reasons import sentence
from gradstable._src.telemetry.event import Event
from gradstable._src.telemetry.extras import need
from gradstable._src.telemetry.fields import member_of
from gradstable._src.telemetry.metrics import metrics_of
from gradstable._src.telemetry.sink import Header


class WandB:
    """Send a run to Weights & Biases.

    Numbers of a step go to ``gradstable/<name>`` over their own axis ``gradstable/step``, since
    they arrive some steps late, and the step of Weights & Biases must ascend. Numbers that your
    loop reports keep their names and use the same axis. Rejected steps are counted, and the summary
    contains the reason for the last one. Each ``gs.telemetry.Event`` is an alert, which Weights &
    Biases sends by mail or to Slack if your settings there ask for it.

    Needs the extra ``gradstable[wandb]``. To run offline, set ``WANDB_MODE=offline`` as usual.

    Args:
      run: your own run, from ``wandb.init``. Default: a new run, started with the name and the
        settings of the log, and finished at the end.
      **settings: arguments for ``wandb.init``: ``project``, ``dir``, ``mode``, ...

    Raises:
      ModuleNotFoundError: if ``wandb`` is not installed; the message says how to install it.

    Example:
      >>> import gradstable as gs
      >>> sink = gs.telemetry.WandB(project="digits", mode="offline")
    """

    def __init__(self, run: Any = None, **settings: Any) -> None:
        self._module = need("wandb", extra="wandb")
        self._run = run
        self._owned = run is None
        self._settings = settings
        self._rejected = 0

    def open(self, header: Header) -> None:
        """Start a run if none was passed."""
        if self._run is None:
            settings = {"name": header.name, "config": dict(header.config), **self._settings}
            self._run = self._module.init(**settings)
        self._run.define_metric(_STEP, hidden=True)
        self._run.define_metric("*", step_metric=_STEP)

    def leaves(self, header: Header) -> None:
        """Do nothing: this sink does not name leaves."""
        del header

    def steps(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Send the numbers of each step."""
        for row in rows:
            if row.get("scale") == 0:
                member = member_of(row)
                self._rejected += 1
                self._run.summary["gradstable/last_rejection"] = (
                    f"step {row['step']}{f' of member {member}' if member else ''}: "
                    f"{sentence(row['reason'])}"
                )
            counted = {"gradstable/rejected": self._rejected}
            self._run.log({**metrics_of(row), **counted, _STEP: row["step"]})

    def event(self, event: Event) -> None:
        """Send an alert, and put it into the summary."""
        self._run.summary["gradstable/last_event"] = event.sentence
        level = "ERROR" if event.is_serious else "WARN"
        self._run.alert(event.title, event.sentence, level=level)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Send numbers of the training loop."""
        self._run.log({**values, _STEP: step})

    def note(self, step: int, text: str) -> None:
        """Put the last note into the summary."""
        self._run.summary["gradstable/last_note"] = f"step {step}: {text}"

    def lost(self, first: int, last: int) -> None:
        """Put it into the summary."""
        self.note(first, f"steps {first} to {last} were not recorded")

    def close(self, step: int) -> None:
        """Finish the run, unless you passed it."""
        del step
        if self._owned:
            self._run.finish()


_STEP = "gradstable/step"
