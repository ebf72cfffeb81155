"""Times: interleaved medians, and the bandwidth they are compared with."""

import statistics
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from benchmarks.counting import size
from benchmarks.speed.trees import Tree

# Bytes per second from data sheets, by device kind.
DATA_SHEETS = {
    "H200": 4.8e12,
    "H100": 3.35e12,
    "A100-SXM4-80GB": 2.0e12,
    "A100 80GB": 2.0e12,
    "A100": 1.55e12,
}


def data_sheet(kind: str) -> float | None:
    """Return the bandwidth of a device from its data sheet, or ``None`` if it is not listed."""
    return next((rate for name, rate in DATA_SHEETS.items() if name in kind), None)


def medians(
    runs: dict[str, Callable[[], None]],
    repeats: int,
    progress: Callable[[], None] = lambda: None,
) -> dict[str, float]:
    """Return the median seconds of each function, run one after another in every round."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(repeats + 2):
        for name, run in runs.items():
            begin = time.perf_counter()
            run()
            times[name].append(time.perf_counter() - begin)
        progress()
    return {name: statistics.median(each[2:]) for name, each in times.items()}


def stepping(
    compiled: Any, tx: optax.GradientTransformation, tree: Tree, chained: int
) -> Callable[[], None]:
    """Return a function that runs some steps of an optimizer in a row and waits for the last."""
    params = {name: jnp.full(leaf.shape, 0.1, leaf.dtype) for name, leaf in tree.items()}
    gradients = {name: jnp.full(leaf.shape, 0.01, leaf.dtype) for name, leaf in tree.items()}
    return in_a_row(compiled, (params, jax.jit(tx.init)(params)), gradients, chained)


def in_a_row(
    step: Callable[..., Any], carry: tuple[Any, Any], gradients: Any, chained: int
) -> Callable[[], None]:
    """Return a function that runs ``carry = step(*carry, gradients)`` some times, and waits."""

    def run() -> None:
        nonlocal carry
        for _ in range(chained):
            carry = step(*carry, gradients)
        jax.block_until_ready(carry)

    return run


def triad(tree: Tree, chained: int) -> tuple[Callable[[], None], int]:
    """Return STREAM's triad on arrays as long as the tree, and the bytes it moves."""
    count = size(tree)

    @jax.jit
    def update(a: jax.Array, b: jax.Array, c: jax.Array) -> jax.Array:
        del a  # donated: the result reuses its memory
        return b + 3.0 * c

    into = jax.jit(update, donate_argnums=0, keep_unused=True)
    a, b, c = jnp.zeros(count), jnp.ones(count), jnp.ones(count)

    def run() -> None:
        nonlocal a
        for _ in range(chained):
            a = into(a, b, c)
        jax.block_until_ready(a)

    run()
    return run, 3 * 4 * count
