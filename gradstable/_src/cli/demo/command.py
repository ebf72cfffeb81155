"""The command itself: read the options, run the race, say what came out, write three files."""

import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import tyro
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from gradstable._src.cli.demo.page import to_html
from gradstable._src.cli.demo.plots import to_png
from gradstable._src.cli.demo.progress import Board, make_console
from gradstable._src.cli.demo.race import Race, race
from gradstable._src.cli.demo.record import to_json
from gradstable._src.cli.demo.summary import HEADER, accounts, conclusions, setting, table

_MAX_SEED = 2**32 - 1  # what scikit-learn and JAX both take


@dataclass(frozen=True)
class Options:
    """Train a small network through a storm of bad batches, with and without the guard.

    A convolutional network learns handwritten digits (they come with scikit-learn), and some
    batches are bad: a sensor with the wrong gain at step 20, later a NaN pixel, wrong labels
    with huge weights, and a dead sensor. Bare AdamW, AdamW behind clip_by_global_norm and
    apply_if_finite, and AdamW in the guard all see the same batches. It takes less than two
    minutes on two cores.
    """

    seed: int = 0
    """Decides on the split of the data, the order of batches, and the first parameters."""
    steps: int = 500
    """How many steps each contestant trains; faults beyond the end are not planted."""
    out: Path = Path("gradstable-demo")
    """Folder for demo.png, demo.html and demo.json; only these are overwritten."""


def main(args: Sequence[str]) -> int:
    """Run ``gradstable demo`` with these arguments; return the exit status."""
    options = tyro.cli(Options, prog="gradstable demo", args=list(args))
    problem = _problem_with(options)
    if problem:
        print(f"gradstable demo: {problem}", file=sys.stderr)
        return 2
    console = make_console()
    with Board(console, steps=options.steps) as board:
        result = race(seed=options.seed, steps=options.steps, watch=board)
    _tell(result, console=console)
    try:
        paths = _write(result, folder=options.out)
    except OSError as error:
        print(f"gradstable demo: cannot write: {error}", file=sys.stderr)
        return 1
    # Not through the console: a path must not be folded.
    print("\n".join(f"wrote {path}" for path in paths))
    return 0


def _problem_with(options: Options) -> str | None:
    """Return what is wrong with the options; tries the folder before any work is done."""
    if options.steps < 1:
        return f"--steps must be at least 1, got {options.steps}"
    if not 0 <= options.seed <= _MAX_SEED:
        return f"--seed must be between 0 and {_MAX_SEED}, got {options.seed}"
    try:
        options.out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=options.out):
            pass
    except OSError as error:
        return f"cannot write to --out {options.out}: {error.strerror or error}"
    return None


def _tell(result: Race, *, console: Console) -> None:
    def say(text: str = "", *, style: str = "", indent: int = 0) -> None:
        # As Text, since the path of a leaf looks like markup.
        if console.is_terminal:
            console.print(Padding(Text(text, style=style), (0, 0, 0, indent)))
        else:
            console.print(Text(" " * indent + text), soft_wrap=True)

    say()
    say(setting(result))
    say()
    console.print(_grid(result))
    say("The guard says:", style="bold")
    say(result.outcomes["guard"].explanation or "")
    say()
    if result.faults:
        say("Fault by fault:", style="bold")
        for account in accounts(result):
            say(f"step {account.steps}: {account.planted}.", indent=2)
            say(f"{account.answer}.", indent=4)
        say()
    say("In short:", style="bold")
    for line in conclusions(result):
        say(line, indent=2)
    say()


def _grid(result: Race) -> Table:
    # Narrow heads and no frames: with its paths whole it has to fit into 80 columns.
    grid = Table(box=SIMPLE_HEAD, pad_edge=False)
    first, *middle, last = HEADER
    grid.add_column(first, min_width=len("apply_if_finite"))
    for name in middle:
        grid.add_column(name.replace(" ", "\n"), justify="right")
    grid.add_column(last, no_wrap=True)
    for row in table(result):
        grid.add_row(*map(Text, row))
    return grid


def _write(result: Race, *, folder: Path) -> list[Path]:
    png, page, raw = (folder / f"demo.{ending}" for ending in ("png", "html", "json"))
    png.write_bytes(to_png(result))
    page.write_text(to_html(result), encoding="utf-8")
    raw.write_text(to_json(result), encoding="utf-8")
    return [png, page, raw]
