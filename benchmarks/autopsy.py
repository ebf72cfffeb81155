"""Measure what an autopsy takes: seconds per equation, and memory compared with the step.

Run it with ``python -m benchmarks.autopsy``; it takes a few minutes on two cores. Each program is
broken at its end, so that all of it is walked through. The peak of the memory is that of all arrays
alive after each equation; that of the step is what XLA plans for loss and gradients.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple
from unittest import mock

import jax
import jax.numpy as jnp
from flax import nnx

import gradstable as gs
from examples.char_transformer import input_pipeline
from examples.char_transformer.configs.default import Config
from examples.char_transformer.train import loss_fn, make_model
from gradstable._src.autopsy.births import Watch
from gradstable._src.autopsy.program import Program

CHAIN, PASSES = 50_000, 20_000


class Case(NamedTuple):
    name: str
    loss: Callable[..., jax.Array]
    params: Any
    args: tuple[Any, ...]


def chain(w: jax.Array, x: jax.Array) -> jax.Array:
    """Return a loss of as many equations, one after another; its gradient doubles them."""
    for _ in range(CHAIN // 2):
        x = jax.lax.sin(jax.lax.mul(x, w))
    return jnp.log(0.0 * jnp.sum(x))


def scan(w: jax.Array, x: jax.Array) -> jax.Array:
    """Return a loss with a loop of many passes."""
    x, _ = jax.lax.scan(lambda h, _: (jnp.sin(h * w), None), x, None, length=PASSES)
    return jnp.log(0.0 * jnp.sum(x))


def transformer() -> Case:
    """Return the step of the example, with a logarithm of its loss that breaks."""
    config = Config()
    text, _ = input_pipeline.split(
        input_pipeline.encode(input_pipeline.text()), held_out=config.held_out
    )
    batch = next(
        iter(
            input_pipeline.batches(
                text, context=config.context, batch_size=config.batch_size, steps=1, seed=0
            )
        )
    )
    graph, params, rest = nnx.split(make_model(config), nnx.Param, ...)

    def loss(params: Any, batch: Any) -> jax.Array:
        value = loss_fn(nnx.merge(graph, params, rest), batch, config.z_weight)
        return jnp.log(value - value)

    return Case("char_transformer", loss, params, (batch,))


@contextmanager
def peak_of_arrays() -> Iterator[list[int]]:
    """Yield the largest number of bytes of all arrays at once, seen after each equation."""
    peak, equation = [0], Watch.equation

    def seen(*args: Any) -> list[Any]:
        peak[0] = max(peak[0], sum(array.nbytes for array in jax.live_arrays()))
        return equation(*args)

    with mock.patch.object(Watch, "equation", seen):
        yield peak


def planned(case: Case) -> int:
    """Return the bytes that XLA plans for loss and gradients, arguments and results included."""
    step = jax.jit(jax.value_and_grad(case.loss)).lower(case.params, *case.args).compile()
    plan: Any = step.memory_analysis()
    return plan.argument_size_in_bytes + plan.output_size_in_bytes + plan.temp_size_in_bytes


def main() -> None:
    w, x = jnp.ones((8, 4)), jnp.ones((8, 4))
    cases = (Case("chain", chain, w, (x,)), Case("scan", scan, w, (x,)), transformer())
    print(f"{'program':18}{'equations':>12}{'seconds':>9}{'peak / step':>13}")
    for case in cases:
        size = Program(case.loss, case.params, case.args, has_aux=False).size
        started = time.perf_counter()
        gs.autopsy(case.loss, case.params, *case.args)
        seconds, ratio = time.perf_counter() - started, ""
        if case.name == "char_transformer":
            with peak_of_arrays() as peak:
                gs.autopsy(case.loss, case.params, *case.args)
            ratio = f"{peak[0] / planned(case):.2f}"
        print(f"{case.name:18}{size:12,}{seconds:9.1f}{ratio:>13}", flush=True)


if __name__ == "__main__":
    main()
