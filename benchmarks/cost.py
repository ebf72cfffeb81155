"""What protection costs, compared with the bare optimizer and optax's own protection.

Run ``python -m benchmarks.cost`` (about three minutes), or with ``--no-time`` for only the counts,
which are reproducible. Times are ratios to the bare optimizer in the same run: medians of
interleaved steps.
"""

import argparse
from collections.abc import Callable
from typing import Any

import jax
import optax
from rich.console import Console
from rich.table import Table

import gradstable as gs
from benchmarks.counting import compile_step, count_common_path, large_tree, size
from benchmarks.speed.timing import medians, stepping

Make = Callable[[], optax.GradientTransformation]

OPTIMIZERS: dict[str, Make] = {
    "adamw": lambda: optax.adamw(3e-4),
    "adamw, schedule": lambda: optax.adamw(optax.cosine_decay_schedule(3e-4, 10_000)),
    "sgd, momentum": lambda: optax.sgd(0.1, momentum=0.9),
    "rmsprop": lambda: optax.rmsprop(1e-3),
    "lion": lambda: optax.lion(1e-4),
    "radam": lambda: optax.radam(3e-4),
    "lamb": lambda: optax.lamb(3e-4),
}


def optax_protection(inner: optax.GradientTransformation) -> optax.GradientTransformation:
    return optax.apply_if_finite(optax.chain(optax.clip_by_global_norm(1.0), inner), 5)


def contestants(name: str) -> dict[str, optax.GradientTransformation]:
    """Return the bare optimizer first, then the protected ones."""
    make = OPTIMIZERS[name]
    rows = {"bare": make(), "gs.guard": gs.guard(make())}
    if name == "adamw":
        rows["gs.adamw"] = gs.adamw(3e-4)
    return rows | {"apply_if_finite(clip)": optax_protection(make())}


def time_ratios(
    compiled: dict[str, tuple[Any, Any]], params: Any, repeats: int
) -> dict[str, float]:
    """Return median step times over the first contestant's, steps interleaved."""
    steps = {name: stepping(step, tx, params, 1) for name, (step, tx) in compiled.items()}
    times = medians(steps, repeats)
    reference = next(iter(times.values()))
    return {name: each / reference for name, each in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--only", choices=OPTIMIZERS, help="one optimizer instead of all")
    parser.add_argument("--no-time", action="store_true", help="counts only")
    parser.add_argument("--repeats", type=int, default=15, help="timed steps of each (default 15)")
    args = parser.parse_args()

    params = large_tree()
    table = Table(
        title=f"{size(params) / 1e6:.1f} M float32 parameters in {len(params)} leaves, "
        f"donated, jax {jax.__version__} on {jax.default_backend()}",
        caption="words: float32 words moved per parameter on the path of a healthy step (rare: "
        "further words of branches for norms that overflow or underflow); temp: temporary "
        "memory over parameters, whole module",
    )
    for column in (
        "optimizer",
        "protection",
        "words",
        "rare",
        "temp",
        "time",
        "trace s",
        "compile s",
    ):
        table.add_column(
            column, justify="left" if column in ("optimizer", "protection") else "right"
        )
    for name in [args.only] if args.only else OPTIMIZERS:
        rows = contestants(name)
        built = {row: compile_step(tx, params) for row, tx in rows.items()}
        ratios: dict[str, float] = {}
        if not args.no_time:
            steps = {row: (built[row][0], tx) for row, tx in rows.items()}
            ratios = time_ratios(steps, params, args.repeats)
        for row, tx in rows.items():
            count = built[row][1]
            common = count_common_path(tx, params) if row.startswith("gs") else count
            table.add_row(
                name if row == "bare" else "",
                row,
                f"{common.words:.2f}",
                f"{count.words - common.words:.2f}" if row.startswith("gs") else "",
                f"{count.temp:.1%}",
                f"{ratios[row]:.2f}" if ratios else "",
                f"{count.trace:.2f}",
                f"{count.compile:.2f}",
            )
        table.add_section()
    Console().print(table)


if __name__ == "__main__":
    main()
