"""One row for each contestant and tree: XLA's counts and measured times."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from benchmarks.counting import Count, compile_step, count_common_path, size
from benchmarks.speed.contestants import Contestant, eager_ratio, recompiles
from benchmarks.speed.timing import medians, stepping, triad
from benchmarks.speed.torch_side import NAME as TORCH
from benchmarks.speed.torch_side import TorchStep, torch_or_none, torch_steps
from benchmarks.speed.trees import Tree

RATE = 3e-4
BARE = "optax.adamw"
_FLOOR = "triad"


class Row(NamedTuple):
    tree: str
    name: str
    milliseconds: float | None = None
    ratio: float | None = None  # to optax.adamw
    floors: float | None = None  # over the time of the necessary words at the bandwidth
    words: float | None = None  # per parameter, on the path of a healthy step
    rare: float | None = None  # additional words of the rarely taken branch
    temp: float | None = None  # temporary memory, as a fraction of the parameters
    trace: float | None = None  # seconds, lowering included
    compile: float | None = None  # seconds
    state: float | None = None  # bytes per parameter
    eager: float | None = None  # ratio to optax.adamw outside of jit, on six small leaves
    recompiles: int | None = None  # when the rate changes
    note: str = ""

    def timed(self, seconds: float, entries: int, necessary: int, bandwidth: float) -> "Row":
        """Return the row with the time of a step, given the words that it cannot avoid."""
        floor = 4 * entries * necessary / bandwidth
        return self._replace(milliseconds=1e3 * seconds, floors=seconds / floor)


class Measured(NamedTuple):
    rows: list[Row]
    bandwidth: float  # bytes per second


def state_bytes(tx: Any, tree: Tree) -> float:
    state = jax.eval_shape(tx.init, tree)
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(state)) / size(tree)


def measure(
    title: str,
    tree: Tree,
    contestants: dict[str, Contestant],
    *,
    repeats: int,
    chained: int,
    peers: bool = False,
    progress: Callable[[str], None] = lambda _: None,
) -> Measured:
    """Measure the contestants on a tree, including the memory bandwidth and torch."""
    counts: dict[str, tuple[Count, Count]] = {}
    runs: dict[str, Callable[[], None]] = {}
    for name, contestant in contestants.items():
        progress(f"{title}: compiling {name}")
        jax.clear_caches()  # traces of one contestant must not speed up the next
        tx = contestant.make(RATE)
        compiled, whole = compile_step(tx, tree)
        counts[name] = whole, count_common_path(tx, tree) if contestant.ours else whole
        runs[name] = stepping(compiled, tx, tree, chained)
    torch = torch_or_none()
    theirs: dict[str, TorchStep] = {}
    if torch is not None:
        theirs = torch_steps(torch, tree, chained, peers=peers)
        runs |= {name: each.run for name, each in theirs.items()}
    runs[_FLOOR], moved = triad(tree, chained)
    times = medians(runs, repeats, lambda: progress(f"{title}: stepping"))
    bandwidth = moved * chained / times[_FLOOR]

    def timed(row: Row, necessary: int) -> Row:
        row = row._replace(ratio=times[row.name] / times[BARE])
        return row.timed(times[row.name] / chained, size(tree), necessary, bandwidth)

    rows: list[Row] = []
    for name, contestant in contestants.items():
        row = _counted(Row(title, name), contestant, tree, *counts[name])
        rows.append(timed(row, contestant.necessary))
    if torch is None:
        rows.append(Row(title, TORCH, note="torch is not installed"))
    rows += [
        timed(Row(title, name, state=each.state), each.necessary) for name, each in theirs.items()
    ]
    return Measured(rows, bandwidth)


def _counted(row: Row, contestant: Contestant, tree: Tree, whole: Count, common: Count) -> Row:
    return row._replace(
        words=common.words,
        rare=whole.words - common.words if contestant.ours else None,
        temp=whole.temp,
        trace=whole.trace,
        compile=whole.compile,
        state=state_bytes(contestant.make(RATE), tree),
        eager=eager_ratio(contestant.make),
        recompiles=recompiles(contestant.make),
    )
