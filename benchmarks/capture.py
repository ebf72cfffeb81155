"""What ``gs.capture`` adds to a healthy step: ``python -m benchmarks.capture`` (a minute or two).

A guarded AdamW over 148 leaves, in a step that takes 10 ms on this machine and donates its state:
with nothing beside it but a list that holds the last state, twice, which shows how far this machine
can be trusted; with a ``gs.telemetry.Log``, and with a capture. They take turns, in an order that
rotates, 30 times 64 steps each. The ratio is that of the medians. The second number is the time of
the calls beside the step by themselves, readings included, with its result there already.
"""

import argparse
import functools
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


def new_start() -> tuple[Any, Any]:
    """Return parameters and state of a new run."""
    params = new_params()
    return params, TX.init(params)


TX = gs.record(gs.guard(optax.adamw(1e-6)))


@functools.partial(jax.jit, donate_argnums=(0, 1))
def step(params: Any, state: Any, x: jax.Array, work: jax.Array) -> tuple[Any, Any]:
    """Make a step whose time is proportional to ``work``."""

    def loss_fn(params: Any) -> jax.Array:
        return sum(jnp.mean((x @ leaf - x) ** 2) for leaf in jax.tree.leaves(params))  # pyright: ignore

    busy = jax.lax.fori_loop(0, work, lambda _, a: jnp.tanh(a @ a), jnp.ones((128, 128)))
    loss, gradient = jax.value_and_grad(loss_fn)(params)
    updates, state = TX.update(gradient, state, params, value=loss + 0 * busy[0, 0])
    return optax.apply_updates(params, updates), state


def loop(beside: Beside, params: Any, state: Any, work: int) -> tuple[float, Any]:
    """Return the seconds for a step, and parameters and state."""
    batches = [np.full((8, SIZE), 1.0 + n / STEPS, np.float32) for n in range(STEPS)]
    jax.block_until_ready(state)
    began = time.perf_counter()
    for x in batches:
        params, state = step(params, state, x, work)
        beside(state, x, params)
    jax.block_until_ready(state)
    return (time.perf_counter() - began) / STEPS, (params, state)


def alone(beside: Beside, params: Any, state: Any) -> float:
    """Return the seconds for a call beside the step."""
    x = np.ones((8, SIZE), np.float32)
    began = time.perf_counter()
    for _ in range(STEPS):
        beside(state, x, params)
    return (time.perf_counter() - began) / STEPS


def calibrated(params: Any, state: Any) -> int:
    """Return how much work makes a step of the time wanted."""
    times: list[float] = []
    for work in (0, 100):
        _, (params, state) = loop(lambda *_: None, params, state, work)
        taken, (params, state) = loop(lambda *_: None, params, state, work)
        times.append(taken)
    return max(int(100 * (MILLISECONDS / 1e3 - times[0]) / (times[1] - times[0])), 0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repetitions", type=int, default=30)
    repetitions = parser.parse_args().repetitions
    params, _ = new_start()
    work = calibrated(*new_start())
    folder = tempfile.mkdtemp()
    log = gs.telemetry.Log(params, f"{folder}/run.jsonl")
    captures = {f"capture, every={every}": gs.capture(f"{folder}/{every}", every=every)
                for every in (64, 16, 1)}  # fmt: skip
    held: list[Any] = []
    besides: dict[str, Beside] = {
        # The others let go of the state before as well, which takes a while.
        "nothing": lambda *given: held.__setitem__(slice(None), given),
        "nothing again": lambda *given: held.__setitem__(slice(None), given),
        "Log": lambda state, *_: log(state),
        **{
            name: lambda state, x, params, capture=capture: capture(state, x, params=params)
            for name, capture in captures.items()
        },
    }
    taken: dict[str, list[float]] = {name: [] for name in besides}
    calls: dict[str, list[float]] = {name: [] for name in besides}
    carries = {name: new_start() for name in besides}
    for turn in range(repetitions + 2):
        names = list(besides)
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            beside = besides[name]
            seconds, carries[name] = loop(beside, *carries[name], work)
            if turn >= 2:  # all is compiled
                taken[name].append(seconds)
                calls[name].append(alone(beside, *carries[name]))
    log.close()
    bare = statistics.median(taken["nothing"])
    print(f"{len(jax.tree.leaves(params))} leaves, {jax.devices()[0].device_kind}")
    for name in besides:
        median = statistics.median(taken[name])
        call = statistics.median(calls[name])
        print(
            f"{name:18s} {1e3 * median:6.2f} ms a step, ratio {median / bare:.4f}; "
            f"calls alone {1e6 * call:6.1f} us a step, {1e5 * call / MILLISECONDS:.2f} % of 10 ms"
        )
    assert not any(capture.folders for capture in captures.values())


if __name__ == "__main__":
    main()
