"""A run in Weights & Biases."""

from collections.abc import Mapping, Sequence
from typing import Any

from gradstable._src.core.reasons import sentence
from gradstable._src.telemetry.extras import need
from gradstable._src.telemetry.fields import NUMBERS, member_of
from gradstable._src.telemetry.sink import Header


class WandB:
    """Send a run to Weights & Biases.

    Numbers of a step go to ``gradstable/<name>`` over an axis ``gradstable/step`` of their own,
    since they come some steps late, and Weights & Biases wants its own step to ascend; what your
    loop reports goes under its own name over the same axis. Rejected steps are counted, and the
    summary holds the sentence of the last one.

    Needs the extra ``gradstable[wandb]``. Offline: ``WANDB_MODE=offline``, as ever.

    Args:
      run: a run of yours, from ``wandb.init``. Default: one is begun, with the name and the
        settings of the log, and finished in the end.
      **settings: for ``wandb.init``: ``project``, ``dir``, ``mode``, ...

    Raises:
      ModuleNotFoundError: if ``wandb`` is not installed; says how to get it.

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
        """Begin a run, if none was given."""
        if self._run is None:
            settings = {"name": header.name, "config": dict(header.config), **self._settings}
            self._run = self._module.init(**settings)
        self._run.define_metric(_STEP, hidden=True)
        self._run.define_metric("*", step_metric=_STEP)

    def leaves(self, header: Header) -> None:
        """Do nothing: leaves have no names here."""
        del header

    def steps(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Send the numbers of each step."""
        for row in rows:
            member = member_of(row)
            whose = f"/member_{member}" if member else ""
            values = {f"gradstable/{name}{whose}": row[name] for name in NUMBERS if name in row}
            if row.get("scale") == 0:
                self._rejected += 1
                self._run.summary["gradstable/last_rejection"] = (
                    f"step {row['step']}{f' of member {member}' if member else ''}: "
                    f"{sentence(row['reason'])}"
                )
            values["gradstable/rejected"] = self._rejected
            self._run.log({**values, _STEP: row["step"]})

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Send numbers of the training loop."""
        self._run.log({**values, _STEP: step})

    def note(self, step: int, text: str) -> None:
        """Keep the last note in the summary."""
        self._run.summary["gradstable/last_note"] = f"step {step}: {text}"

    def lost(self, first: int, last: int) -> None:
        """Keep it in the summary."""
        self.note(first, f"steps {first} to {last} were not recorded")

    def close(self, step: int) -> None:
        """Finish the run, unless it is yours."""
        del step
        if self._owned:
            self._run.finish()


_STEP = "gradstable/step"
