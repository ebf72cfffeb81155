"""XLA's own counts of a training step: words moved per parameter, temporary memory."""

import time
from typing import Any, NamedTuple
from unittest import mock

import jax
import jax.numpy as jnp
import optax

from gradstable._src.core import norms

NUM_LEAVES = 81
NUM_PARAMS = 41_600_000


class Count(NamedTuple):
    """What XLA reports about one compiled step."""

    words: float  # float32 words read and written per parameter
    temp: float  # temporary memory, as a fraction of the parameters
    trace: float  # seconds
    compile: float  # seconds


def large_tree(
    num_leaves: int = NUM_LEAVES, num_params: int = NUM_PARAMS, *, multiple: int = 1
) -> dict[str, Any]:
    """Return the types of a tree of equal float32 matrices, with sides of a multiple of a size."""
    rows = int((num_params / num_leaves) ** 0.5) // multiple * multiple
    shape = (rows, num_params // num_leaves // rows // multiple * multiple)
    return {f"w{i:02}": jax.ShapeDtypeStruct(shape, jnp.float32) for i in range(num_leaves)}


def size(params: Any) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(params))


def compile_step(tx: optax.GradientTransformation, params: Any) -> tuple[Any, Count]:
    """Compile one step with donated parameters and state, as a training loop runs it."""

    def step(params: Any, state: Any, gradients: Any) -> tuple[Any, Any]:
        updates, state = tx.update(gradients, state, params)
        return optax.apply_updates(params, updates), state

    state = jax.eval_shape(tx.init, params)
    start = time.perf_counter()
    lowered = jax.jit(step, donate_argnums=(0, 1)).lower(params, state, params)
    traced = time.perf_counter()
    compiled = lowered.compile()
    done = time.perf_counter()
    memory, cost, plan = 4 * size(params), compiled.cost_analysis(), compiled.memory_analysis()
    if cost is None or plan is None:
        msg = f"{jax.default_backend()} does not count bytes and memory"
        raise RuntimeError(msg)
    count = Count(
        words=cost["bytes accessed"] / memory,
        temp=plan.temp_size_in_bytes / memory,
        trace=traced - start,
        compile=done - traced,
    )
    return compiled, count


def count_common_path(tx: optax.GradientTransformation, params: Any) -> Count:
    """Count only the path of a healthy step.

    For a switch, XLA counts the branch that moves most, although the branches for norms whose
    squares overflow or vanish are rarely taken (tests/core/test_norms.py tests when they are). Here
    these do nothing. The switch itself stays, because without it XLA would fuse differently.
    """

    def common(way: Any, branches: Any) -> Any:
        types = jax.eval_shape(branches[0])

        def nothing() -> Any:
            return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), types)

        return switch(way, (branches[0], *[nothing] * (len(branches) - 1)))

    switch = jax.lax.switch
    with mock.patch.object(norms.lax, "switch", common):
        return compile_step(tx, params)[1]
