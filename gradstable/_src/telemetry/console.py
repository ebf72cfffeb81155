"""A run in the terminal: a panel that follows it."""

from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

from gradstable._src.telemetry.event import Event
from gradstable._src.telemetry.extras import need
from gradstable._src.telemetry.sink import Header

_BARS = "▁▂▃▄▅▆▇█"


class Console:
    """Show a run in a ``rich`` panel that is redrawn at each reading.

    It shows the last step, loss and norm with a small curve of each, how many steps were clipped
    and rejected, the numbers that your loop reports, and the last events in words. If the output is
    not a terminal, only the last panel is printed, at the end.

    Needs the extra ``gradstable[console]``.

    Args:
      console: your own ``rich.console.Console``. Default: one on standard output.
      events_shown: number of recent events to show, >= 1. Default 5.

    Raises:
      ModuleNotFoundError: if ``rich`` is not installed; the message says how to install it.

    Example:
      >>> import gradstable as gs
      >>> sink = gs.telemetry.Console()
    """

    def __init__(self, console: Any = None, *, events_shown: int = 5) -> None:
        need("rich", extra="console")
        self._console = console
        self._header = Header("run", (), (), (), {})
        self._live: Any = None
        self._events: deque[str] = deque(maxlen=events_shown)
        self._numbers: dict[str, float] = {}
        self._curves: dict[str, deque[float]] = {
            name: deque(maxlen=256) for name in ("loss", "grad_norm")
        }
        self._step = self._rows = self._clipped = self._rejected = 0

    def open(self, header: Header) -> None:
        """Show an empty panel."""
        from rich.live import Live

        self._header = header
        self._live = Live(self._panel(), console=self._console, auto_refresh=False)
        self._live.start()

    def leaves(self, header: Header) -> None:
        """Use these names."""
        self._header = header

    def steps(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Count and redraw."""
        self._rows += len(rows)
        for row in rows:
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
                table.add_row(name.replace("_", " "), f"{curve[-1]:.4g}", sparkline(curve))
        for name, value in self._numbers.items():
            table.add_row(name, f"{value:.4g}")
        # Several runs have more rows than steps; a run that lost steps has fewer.
        good = max(self._step, self._rows) - self._rejected
        counts = f"step {self._step}: {good} accepted, {self._clipped} of them clipped, "
        summary = Text(counts).append(
            f"{self._rejected} rejected", style="bold red" if self._rejected else ""
        )
        lines = [Text(event, style="yellow") for event in self._events]
        return Panel(Group(summary, table, *lines), title=self._header.name, title_align="left")


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
