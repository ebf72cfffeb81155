"""Protected steps compared with bare ones, torch, and the memory bandwidth.

Run ``python -m benchmarks.speed`` (twenty minutes on a CPU; ``--quick``: three) on an otherwise
idle machine. Times are medians of interleaved steps. On a GPU the trees are larger, several steps
run before the host waits for one, and the data sheet of the device is listed next to the measured
bandwidth.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from benchmarks.speed.contestants import chosen
from benchmarks.speed.measure import Measured, Row, measure
from benchmarks.speed.table import LEGEND, show, wide_console, write_json, write_markdown
from benchmarks.speed.timing import data_sheet
from benchmarks.speed.trees import CPU, GPU, QUICK, TINY, trees


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.speed",
        description=__doc__,
        formatter_class=argparse.RawTextHelpFormatter,
    )
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--quick", action="store_true", help="a sixteenth of the parameters")
    size.add_argument("--tiny", action="store_true", help="check that it runs; times mean nothing")
    parser.add_argument("--only", metavar="WORD", default="", help="trees whose name contains this")
    parser.add_argument("--rows", metavar="WORD", default="", help="rows whose name contains this")
    parser.add_argument("--peers", action="store_true", help="8-bit AdamW of torchao, bitsandbytes")
    parser.add_argument("--repeats", type=int, default=15, help="timed rounds (default 15)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the tables")
    return parser.parse_args(argv)


def device_line(kind: str, on_gpu: bool) -> str:
    """Return what is known about this device's memory before measuring it."""
    if not on_gpu:
        return "no GPU here: no data sheet to compare with"
    known = data_sheet(kind)
    return f"data sheet of {kind}: " + (f"{known / 1e12:.2f} TB/s" if known else "not listed")


def chosen_trees(args: argparse.Namespace, *, on_gpu: bool) -> dict[str, Any]:
    scale = TINY if args.tiny else QUICK if args.quick else GPU if on_gpu else CPU
    every = trees(scale, num_small=20 if args.tiny else 200 if args.quick else 1000)
    return {name: tree for name, tree in every.items() if args.only in name}


def main(argv: Sequence[str] | None = None) -> None:
    args = arguments(argv)
    on_gpu = jax.default_backend() == "gpu"
    kind = jax.devices()[0].device_kind
    console = wide_console()
    about = (
        f"jax {jax.__version__} on {jax.default_backend()} ({kind}); {device_line(kind, on_gpu)}"
    )
    console.print(about)
    found: dict[str, Measured] = {}
    spinner = SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn()
    with Progress(*spinner, console=console, transient=True) as progress:
        task = progress.add_task("")
        for name, tree in chosen_trees(args, on_gpu=on_gpu).items():
            found[name] = measure(
                name,
                tree,
                chosen(args.rows),
                repeats=args.repeats,
                chained=10 if on_gpu else 1,
                peers=args.peers,
                progress=lambda what: progress.update(task, description=what),
            )
    titled: dict[str, Sequence[Row]] = {
        f"{name}, memory at {each.bandwidth / 1e9:.1f} GB/s": each.rows
        for name, each in found.items()
    }
    for title, rows in titled.items():
        show(title, rows, console)
    console.print(LEGEND)
    if args.markdown:
        write_markdown(args.markdown, "Steps on a CPU", __doc__, about, titled)
    if args.json:
        rows = [row for each in found.values() for row in each.rows]
        measured = {name: each.bandwidth for name, each in found.items()}
        facts = {"about": about, "device": kind, "data_sheet": data_sheet(kind) if on_gpu else None}
        write_json(args.json, rows, facts | {"bandwidth": measured})


if __name__ == "__main__":
    main()
