"""A run in the terminal: a panel that follows it."""

import math
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from gradstable._src.telemetry.event import Event
from gradstable._src.telemetry.extras import need
from gradstable._src.telemetry.sink import Header

_BARS = "▁▂▃▄▅▆▇█"


class Console:
    """Show a run in a ``rich`` panel that is redrawn at each reading.

    It shows the last step and the pace, loss and norm with a small curve of each, the norm at which
    the guard acts, the factor by which steps are shortened, how many steps were clipped and
    rejected, the numbers that your loop reports, and the last events in words. If the output is
    not a terminal, only the last panel is printed, at the end.

    Needs the extra ``gradstable[console]``.

    Args:
      console: your own ``rich.console.Console``. Default: one on standard output.
      events_shown: number of recent events to show, >= 1. Default 5.
      steps: how many steps the run will have, for the time that is left. Default: unknown.

    Raises:
      ModuleNotFoundError: if ``rich`` is not installed; the message says how to install it.

    Example:
      >>> import gradstable as gs
      >>> sink = gs.telemetry.Console()
    """

    def __init__(
        self, console: Any = None, *, events_shown: int = 5, steps: int | None = None
    ) -> None:
        need("rich", extra="console")
        self._console = console
        self._header = Header("run", (), (), (), {})
        self._live: Any = None
        self._events: deque[str] = deque(maxlen=events_shown)
        self._numbers: dict[str, float] = {}
        self._pace = Pace(steps)
        self._curves: dict[str, deque[float]] = {
            name: deque(maxlen=256) for name in ("loss", "grad_norm")
        }
        self._now: Mapping[str, Any] = {}
        self._step = self._rows = self._clipped = self._rejected = 0

    def open(self, header: Header) -> None:
        """Show an empty panel."""
        from rich.live import Live

        self._header = header
        self._live = Live(self._panel(), console=self._console, auto_refresh=False)
        self._live.start()

    def leaves(self, header: Header) -> None:
        """Do nothing: events name leaves."""
        del header

    def steps(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Count and redraw."""
        self._rows += len(rows)
        if rows:
            self._pace.at(rows[-1]["step"])
        for row in rows:
            self._now = row
            self._step = row["step"]
            self._rejected += row.get("scale") == 0
            self._clipped += row.get("scale") not in (0, 1, None)
            for name, curve in self._curves.items():
                if name in row:
                    curve.append(row[name])
        self._draw()

    def event(self, event: Event) -> None:
        """Show it among the events."""
        steps = f"{event.step}" if event.step == event.last else f"{event.step}-{event.last}"
        self._events.append(f"{steps}: {event.note}")
        self._draw()

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Show the numbers."""
        del step
        self._numbers |= values
        self._draw()

    def note(self, step: int, text: str) -> None:
        """Show it among the events."""
        self._events.append(f"{step}: {text}")
        self._draw()

    def lost(self, first: int, last: int) -> None:
        """Show it among the events."""
        self._events.append(f"{first}-{last}: not recorded")

    def close(self, step: int) -> None:
        """Leave the last panel on the screen."""
        del step
        self._draw()
        self._live.stop()

    def _draw(self) -> None:
        self._live.update(self._panel(), refresh=True)

    def _panel(self) -> Any:
        from rich.console import Group
        from rich.panel import Panel
        from rich.table import Table
        from rich.text import Text

        table = Table.grid(padding=(0, 2))
        for name, curve in self._curves.items():
            if curve:
                beside = sparkline(curve)
                if name == "grad_norm":
                    beside += _limits(self._now)
                table.add_row(name.replace("_", " "), f"{curve[-1]:.4g}", beside)
        for name, value in self._numbers.items():
            table.add_row(name, f"{value:.4g}")
        # Several runs have more rows than steps; a run that lost steps has fewer.
        good = max(self._step, self._rows) - self._rejected
        counts = f"step {self._step}: {good} accepted, {self._clipped} of them clipped, "
        summary = Text(counts).append(
            f"{self._rejected} rejected", style="bold red" if self._rejected else ""
        )
        if self._pace.text:
            summary.append(f", {self._pace.text}")
        lines = [Text(event, style="yellow") for event in self._events]
        return Panel(Group(summary, table, *lines), title=self._header.name, title_align="left")


class Pace:
    """How fast a run is, and how long it will take.

    Args:
      steps: how many steps it will have; ``None``: unknown.
      clock: what tells the time in seconds.
    """

    def __init__(
        self, steps: int | None = None, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._steps, self._clock = steps, clock
        # The first reading comes after compilation, and the time of a few readings is enough.
        self._seen: deque[tuple[int, float]] = deque(maxlen=8)

    def at(self, step: int) -> None:
        """Note that the run is at this step."""
        self._seen.append((step, self._clock()))

    @property
    def text(self) -> str:
        """The pace in words; empty while it is unknown."""
        if len(self._seen) <= 1:
            return ""
        (first, begin), (last, end) = self._seen[0], self._seen[-1]
        if last <= first or end <= begin:
            return ""
        pace = (last - first) / (end - begin)
        told = f"{pace:.3g} steps/s" if pace >= 1 else f"{1 / pace:.3g} s/step"
        if self._steps is None or last >= self._steps:
            return told
        left = round((self._steps - last) / pace)
        hours, minutes = left // 3600, left // 60 % 60
        return f"{told}, {hours}:{minutes:02}:{left % 60:02} left"


def _limits(row: Mapping[str, Any]) -> str:
    """Return at which norm the guard acts, and by how much steps are shortened, if they are."""
    limit, factor = row.get("threshold", math.inf), row.get("lr_factor", 1.0)
    told = f"  acts above {limit:.3g}" if math.isfinite(limit) else ""
    return told + (f"  steps at {100 * factor:.3g} %" if factor < 1 else "")


def sparkline(values: Sequence[float], *, width: int = 32) -> str:
    """Return a curve in one line of text: the largest value in each of ``width`` parts.

    Values that are not finite are crosses.
    """
    import numpy as np

    parts = np.array_split(np.asarray(values, np.float64), min(width, len(values)))
    tops = np.array([part.max() for part in parts])  # NaN wins
    finite = np.isfinite(tops)
    low, high = (tops[finite].min(), tops[finite].max()) if finite.any() else (0.0, 0.0)
    span = high - low or 1.0
    return "".join(
        _BARS[int((top - low) / span * (len(_BARS) - 1))] if ok else "×"
        for top, ok in zip(tops, finite, strict=True)
    )
