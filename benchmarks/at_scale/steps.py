"""One optimizer step on a mesh, compiled ahead of time and inspected."""

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import optax

import gradstable as gs
from benchmarks.at_scale.layouts import Shardings
from benchmarks.collectives import Paths, read_collectives

OPTIMIZERS: dict[str, Callable[[], optax.GradientTransformation]] = {
    "optax.adamw": lambda: optax.adamw(3e-4),
    "clip_by_global_norm, adamw": lambda: optax.chain(
        optax.clip_by_global_norm(1.0), optax.adamw(3e-4)
    ),
    "gs.guard(optax.adamw)": lambda: gs.guard(optax.adamw(3e-4)),
    "gs.stable_adamw": lambda: gs.stable_adamw(3e-4),
}


class Figures(NamedTuple):
    """What one device sends and stores in a step."""

    paths: Paths
    state: int  # bytes
    temp: int  # bytes, in addition to parameters, gradients, and state
    trace: float  # seconds
    compile: float  # seconds


def compile_step(tx: optax.GradientTransformation, params: Any, *, shardings: Shardings) -> Figures:
    """Compile a step on already reduced gradients, with parameters and state donated."""

    def step(params: Any, state: Any, gradients: Any) -> tuple[Any, Any]:
        updates, state = tx.update(gradients, state, params)
        return optax.apply_updates(params, updates), state

    state, of_state = state_of(tx, params, shardings=shardings)
    places = (shardings.params, of_state)
    jitted = jax.jit(
        step,
        in_shardings=(*places, shardings.gradients),
        out_shardings=places,
        donate_argnums=(0, 1),
    )
    start = time.perf_counter()
    lowered = jitted.lower(params, state, params)
    traced = time.perf_counter()
    compiled = lowered.compile()
    done = time.perf_counter()
    memory, text = compiled.memory_analysis(), compiled.as_text()
    if memory is None or text is None:
        raise RuntimeError(f"{jax.default_backend()} does not report what it compiled")
    return Figures(
        paths=read_collectives(text),
        state=gs.sharding.bytes_per_device(state, shardings=of_state),
        temp=memory.temp_size_in_bytes,
        trace=traced - start,
        compile=done - traced,
    )


def state_of(
    tx: optax.GradientTransformation, params: Any, *, shardings: Shardings
) -> tuple[Any, Any]:
    """Return the shapes and shardings of a state, with moments placed like their gradients."""
    state = jax.eval_shape(tx.init, params)
    return state, gs.sharding.state_shardings(tx, params, shardings=shardings.gradients)
