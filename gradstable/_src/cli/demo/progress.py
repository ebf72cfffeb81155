"""What is seen while it runs: a bar for each contestant, or a line where nobody watches."""

from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn

from gradstable._src.cli.demo.contestants import CONTESTANTS
from gradstable._src.cli.demo.train import Run

# Where the width is not known, a table shall not be folded.
_PLAIN_WIDTH = 120


def make_console() -> Console:
    """Return the console that everything is printed on."""
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=_PLAIN_WIDTH)
    return console


class Board:
    """One bar for each contestant; a context manager, called with a run that has moved.

    Args:
      console: where to draw; if it is no terminal, a single line is printed instead.
      steps: how many steps each contestant does.
    """

    def __init__(self, console: Console, *, steps: int) -> None:
        self._console = console
        self._steps = steps
        self._progress = Progress(
            TextColumn("{task.description}"),
            # What stands beside the bar takes 70 columns.
            BarColumn(bar_width=24 if console.width >= 96 else 8),
            MofNCompleteColumn(),
            TextColumn("loss {task.fields[loss]:>7}"),
            TextColumn("norm {task.fields[norm]:>7}"),
            TextColumn("rejected {task.fields[rejected]:>3}"),
            console=console,
            disable=not console.is_terminal,
        )
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> Self:
        if not self._console.is_terminal:
            self._console.print(
                f"{len(CONTESTANTS)} runs of {self._steps} steps each, side by side ..."
            )
        self._progress.start()
        for contestant in CONTESTANTS:
            self._tasks[contestant.key] = self._progress.add_task(
                contestant.name, total=self._steps, loss="", norm="", rejected=""
            )
        return self

    def __call__(self, run: Run) -> None:
        """Move the bar of this run to where it is."""
        last = run.last
        self._progress.update(
            self._tasks[run.contestant.key],
            completed=run.steps,
            loss=f"{float(last.loss):.2g}",
            norm=f"{float(last.grad_norm):.2g}",
            rejected=str(run.rejected) if run.method.judges else "-",
        )

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._progress.stop()
