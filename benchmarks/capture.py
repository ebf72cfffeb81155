"""What ``gs.capture`` adds to a healthy step: ``python -m benchmarks.capture`` (a minute or two).

A guarded AdamW over 148 leaves, in a step that takes 10 ms on this machine: with nothing beside it
that does more than hold the last state, with a ``gs.telemetry.Log``, and with a capture. They take
turns, in an order that rotates, 30 times 64 steps each; the ratio is that of the medians. The last
columns are the time of the processor that the loop spends beside the step, whose result is there.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import gradstable as gs

LAYERS, SIZE = 12, 64
STEPS, MILLISECONDS = 64, 10.0

Beside = Callable[[Any, Any, Any], object]


def new_params() -> dict[str, Any]:
    """Return parameters with the leaves of a small transformer."""
    names = ("q", "k", "v", "o", "up", "down", "gate", "norm_1", "norm_2", "bias_1", "bias_2", "s")
    key = jax.random.key(0)
    layers = {
        f"layer_{layer}": {
            name: jax.random.normal(jax.random.fold_in(key, layer), (SIZE, SIZE)) / SIZE**0.5
            for name in names
        }
        for layer in range(LAYERS)
    }
    ends = {name: jnp.ones((SIZE, SIZE)) / SIZE for name in ("embed", "head", "norm", "bias")}
    return {**layers, **ends}


TX = gs.record(gs.guard(optax.adamw(1e-6)))


@jax.jit
def step(params: Any, state: Any, x: jax.Array, work: jax.Array) -> tuple[Any, Any]:
    """Make a step whose time is proportional to ``work``."""

    def loss_fn(params: Any) -> jax.Array:
        return sum(jnp.mean((x @ leaf - x) ** 2) for leaf in jax.tree.leaves(params))  # pyright: ignore

    busy = jax.lax.fori_loop(0, work, lambda _, a: jnp.tanh(a @ a), jnp.ones((128, 128)))
    loss, gradient = jax.value_and_grad(loss_fn)(params)
    updates, state = TX.update(gradient, state, params, value=loss + 0 * busy[0, 0])
    return optax.apply_updates(params, updates), state


def loop(beside: Beside, params: Any, state: Any, work: int, *, waits: bool) -> tuple[float, Any]:
    """Return the seconds for a step, or those spent beside it, and parameters and state."""
    batches = [np.full((8, SIZE), 1.0 + n / STEPS, np.float32) for n in range(STEPS)]
    jax.block_until_ready(state)
    inside, began = 0.0, time.perf_counter()
    for x in batches:
        params, state = step(params, state, x, work)
        if waits:
            jax.block_until_ready(state)
        before = time.thread_time()  # not that of others who use this machine
        beside(state, x, params)
        inside += time.thread_time() - before
    jax.block_until_ready(state)
    taken = time.perf_counter() - began
    return (inside if waits else taken) / STEPS, (params, state)


def calibrated(params: Any, state: Any) -> int:
    """Return how much work makes a step of the time wanted."""
    times: list[float] = []
    for work in (0, 100):
        loop(lambda *_: None, params, state, work, waits=False)
        times.append(loop(lambda *_: None, params, state, work, waits=False)[0])
    return max(int(100 * (MILLISECONDS / 1e3 - times[0]) / (times[1] - times[0])), 0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repetitions", type=int, default=30)
    repetitions = parser.parse_args().repetitions
    params = new_params()
    state = TX.init(params)
    work = calibrated(params, state)
    folder = tempfile.mkdtemp()
    log = gs.telemetry.Log(params, f"{folder}/run.jsonl")
    captures = {f"capture, every={every}": gs.capture(f"{folder}/{every}", every=every)
                for every in (64, 16, 1)}  # fmt: skip
    held: list[Any] = []
    besides: dict[str, Beside] = {
        # The others free the state before as well.
        "nothing": lambda *given: held.__setitem__(slice(None), given),
        "Log": lambda state, *_: log(state),
        **{
            name: lambda state, x, params, capture=capture: capture(state, x, params=params)
            for name, capture in captures.items()
        },
    }
    taken: dict[str, list[float]] = {name: [] for name in besides}
    alone: dict[str, list[float]] = {name: [] for name in besides}
    carries = {name: (params, state) for name in besides}
    for turn in range(repetitions + 2):
        names = list(besides)
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            beside = besides[name]
            first, carries[name] = loop(beside, *carries[name], work, waits=False)
            second, carries[name] = loop(beside, *carries[name], work, waits=True)
            if turn >= 2:  # all is compiled
                taken[name].append(first)
                alone[name].append(second)
    log.close()
    bare = statistics.median(taken["nothing"])
    print(f"{len(jax.tree.leaves(params))} leaves, {jax.devices()[0].device_kind}")
    for name in besides:
        median = statistics.median(taken[name])
        added = statistics.median(alone[name]) - statistics.median(alone["nothing"])
        print(
            f"{name:18s} {1e3 * median:6.2f} ms a step, ratio {median / bare:.4f}; "
            f"beside the step {1e6 * added:6.1f} us, {1e5 * added / MILLISECONDS:.2f} % of 10 ms"
        )
    assert not any(capture.folders for capture in captures.values())


if __name__ == "__main__":
    main()
