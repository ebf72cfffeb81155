"""The contestants: bare optimizers, optax's protection, and ours, all created from a rate."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

import gradstable as gs
from benchmarks.cost import optax_protection
from benchmarks.speed.timing import in_a_row, medians


class Contestant(NamedTuple):
    make: Callable[[Any], optax.GradientTransformation]
    # Words that no implementation can avoid: gradient, parameter, and statistics are read, and all
    # but the gradient are written. Two bytes of statistics are half a word.
    necessary: int = 7
    ours: bool = False


def _clipped(rate: Any) -> optax.GradientTransformation:
    return optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(rate))


CONTESTANTS: dict[str, Contestant] = {
    "optax.adamw": Contestant(optax.adamw),
    "gs.guard(optax.adamw)": Contestant(lambda rate: gs.guard(optax.adamw(rate)), ours=True),
    "gs.adamw": Contestant(gs.adamw, ours=True),
    "gs.stable_adamw": Contestant(gs.stable_adamw, ours=True),
    "gs.adamw_8bit": Contestant(gs.adamw_8bit, necessary=4, ours=True),
    "gs.guard(compress_moments(adamw))": Contestant(
        lambda rate: gs.guard(gs.precision.compress_moments(optax.adamw(rate))),
        necessary=4,
        ours=True,
    ),
    "chain(clip_by_global_norm, adamw)": Contestant(_clipped),
    "apply_if_finite(chain(clip, adamw))": Contestant(
        lambda rate: optax_protection(optax.adamw(rate))
    ),
    "optax.sgd, momentum": Contestant(lambda rate: optax.sgd(rate, momentum=0.9), necessary=5),
}


def chosen(word: str) -> dict[str, Contestant]:
    """Return those with a word in their name, and the bare optimizer as the baseline."""
    bare = next(iter(CONTESTANTS))
    return {name: each for name, each in CONTESTANTS.items() if word in name or name == bare}


@functools.cache
def eager_seconds(make: Callable[[Any], optax.GradientTransformation]) -> float:
    """Return the median time of a step outside of ``jit``, on six small leaves, in a loop."""
    tx = make(3e-4)
    params = {f"w{i}": jnp.ones((64, 64)) for i in range(6)}

    def step(_: Any, state: Any, gradients: Any) -> tuple[Any, Any]:
        updates, state = tx.update(gradients, state, params)
        return optax.apply_updates(params, updates), state

    run = in_a_row(step, (params, tx.init(params)), params, 1)
    for _ in range(10):
        run()
    return medians({"eager": run}, repeats=15)["eager"]


def eager_ratio(make: Callable[[Any], optax.GradientTransformation]) -> float:
    return eager_seconds(make) / eager_seconds(next(iter(CONTESTANTS.values())).make)


@functools.cache
def recompiles(make: Callable[[Any], optax.GradientTransformation]) -> int:
    """Return how often a step is recompiled when the rate, one of its arguments, changes."""

    @jax.jit
    def step(params: Any, state: Any, rate: jax.Array) -> tuple[Any, Any]:
        updates, state = make(rate).update(params, state, params)
        return optax.apply_updates(params, updates), state

    params = {"kernel": jnp.ones((2, 3)), "bias": jnp.ones(3)}
    carry = params, make(jnp.float32(1e-3)).init(params)
    sizes: list[int] = []
    for rate in (1e-3, 2e-3, 3e-4):
        carry = step(*carry, jnp.float32(rate))
        sizes.append(getattr(step, "_cache_size")())  # noqa: B009 - not part of jax's interface
    return sizes[-1] - sizes[0]
