"""A sink for TensorBoard: scalars of every step, histograms of leaf norms."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from gradstable._src.telemetry.event import Event
from gradstable._src.telemetry.extras import need
from gradstable._src.telemetry.fields import NUMBERS, member_of
from gradstable._src.telemetry.sink import Header
from gradstable._src.telemetry.tap_ring import tap_numbers


class TensorBoard:
    """Write event files for TensorBoard with ``tensorboardX``.

    Scalars are ``train/loss``, ``gradient/norm`` and so on; numbers from ``log.scalars`` go to
    ``metrics/``, and those of taps to ``taps/``. Leaf norms are histograms of their base-10
    logarithms, and each ``gs.telemetry.Event`` is a text under ``events``. TensorBoard omits
    non-finite values: such steps are counted in ``guard/not_finite``.

    Needs the extra ``gradstable[tensorboard]``.

    Args:
      folder: where the event files go; one folder per run.

    Raises:
      ModuleNotFoundError: if ``tensorboardX`` is not installed; the message says how to install it.

    Example:
      >>> import tempfile
      >>> import jax.numpy as jnp
      >>> import gradstable as gs
      >>> sink = gs.telemetry.TensorBoard(tempfile.mkdtemp())
      >>> with gs.telemetry.Log(jnp.ones(2), sinks=[sink]) as log:
      ...     log.scalars(1, accuracy=0.5)
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self._module = need("tensorboardX", extra="tensorboard")
        self._folder = os.fspath(folder)
        self._writer: Any = None
        self._not_finite = 0

    def open(self, header: Header) -> None:
        """Create the event file and write the settings."""
        self._writer = self._new_writer()
        settings = "\n".join(f"- {key}: {value}" for key, value in header.config.items())
        self._writer.add_text("run", f"{header.name}\n\n{settings}", 0)

    def leaves(self, header: Header) -> None:
        """Do nothing: this sink does not name leaves."""
        del header

    def steps(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Write scalars and histograms."""
        self._revive()
        for row in rows:
            step, member = row["step"], member_of(row)
            whose = f"/member_{member}" if member else ""
            known = {f"{_TAGS[name]}{whose}": row[name] for name in NUMBERS if name in row}
            finite = {tag: value for tag, value in known.items() if np.isfinite(value)}
            for tag, value in finite.items():
                self._writer.add_scalar(tag, value, step)
            if not np.isfinite(row.get("grad_norm", 0.0)):
                self._not_finite += 1
                self._writer.add_scalar("guard/not_finite", self._not_finite, step)
            norms = np.asarray(row.get("leaf_norms", ()), np.float64)
            norms = norms[np.isfinite(norms) & (norms > 0)]
            if norms.size:
                tag = f"gradient/log10_leaf_norms{whose}"
                self._writer.add_histogram(tag, np.log10(norms), step)
            for tag, value in tap_numbers(row).items():
                if np.isfinite(value):
                    self._writer.add_scalar(f"taps/{tag}{whose}", value, step)
        self._writer.flush()

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Write numbers of the training loop."""
        self._revive()
        for name, value in values.items():
            if np.isfinite(value):
                self._writer.add_scalar(f"metrics/{name}", value, step)

    def event(self, event: Event) -> None:
        """Write a text."""
        whose = f"/member_{event.member}" if event.member else ""
        self._revive()
        self._writer.add_text(f"events{whose}", event.sentence, event.step)
        self._writer.flush()

    def note(self, step: int, text: str) -> None:
        """Write a text."""
        self._writer.add_text("events", text, step)

    def lost(self, first: int, last: int) -> None:
        """Write a text."""
        self._writer.add_text("events", f"steps {first} to {last} were not recorded", first)

    def close(self, step: int) -> None:
        """Close the event file."""
        del step
        self._revive()
        self._writer.close()

    def _new_writer(self) -> Any:
        # An unbounded queue; a bounded one would block once its thread has died.
        return self._module.SummaryWriter(self._folder, max_queue=0)

    def _revive(self) -> None:
        """Start a new event file if the writer thread has died, as on a full disk."""
        events = getattr(getattr(self._writer, "file_writer", None), "event_writer", None)
        thread = getattr(events, "_worker", None)
        if thread is None or thread.is_alive():
            return
        queue = getattr(events, "_event_queue", None)
        if queue is not None:
            # Nobody reads it anymore, so the process must not wait for it when it ends.
            queue.cancel_join_thread()
        self._writer = self._new_writer()


_TAGS = {
    "loss": "train/loss",
    "grad_norm": "gradient/norm",
    "threshold": "gradient/threshold",
    "scale": "guard/scale",
    "update_ratio": "update/ratio",
    "rms": "gradient/rms_t",
    "lr_factor": "update/lr_factor",
}
