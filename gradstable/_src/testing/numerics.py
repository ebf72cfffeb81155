"""Promises about numbers: dtypes kept, no implicit promotion, faults survived."""

import itertools
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import optax

from gradstable._src.testing.compare import by_path, require, require_finite, require_same_types
from gradstable._src.testing.material import PRECISIONS, abstract, cast, gradients, traced


def check_update_dtypes(tx: optax.GradientTransformation, params: Any) -> None:
    """Return updates in the dtypes of the gradients: float32, bfloat16, float16, or mixed."""
    for these in _in_all_precisions(params):
        updates = traced(tx, these, these).updates
        require_same_types(updates, these, name="updates", when="for gradients of these dtypes")


def check_strict_promotion(tx: optax.GradientTransformation, params: Any) -> None:
    """Promote no dtype implicitly, as ``jax.numpy_dtype_promotion('strict')`` demands."""
    for these in _in_all_precisions(params):
        refused = traced(tx, these, these).refused
        if refused is not None:
            raise refused


def check_strict_rank(tx: optax.GradientTransformation, params: Any) -> None:
    """Promote no rank implicitly, as ``jax.numpy_rank_promotion('raise')`` demands."""
    with jax.numpy_rank_promotion("raise"):
        shapes = abstract(params)
        state = jax.eval_shape(tx.init, shapes)
        jax.eval_shape(tx.update, shapes, state, shapes)


def check_survives_any_gradient(tx: optax.GradientTransformation, params: Any) -> None:
    """Keep parameters finite whatever a gradient holds, and in the step after it."""
    # The function that check_jit_equals_eager compiles, so that both share the program.
    update = jax.jit(tx.update)

    def compiled(params: Any, state: Any, updates: Any) -> tuple[Any, Any]:
        updates, state = update(updates, state, params)
        return _apply(params, updates), state

    fresh = params, tx.init(params)
    used = compiled(*fresh, gradients(params))
    require_finite(used[0], name="params", when="after a healthy step")
    for fault, (age, start) in itertools.product(_FAULTS, (("first", fresh), ("second", used))):
        for place, faulty in _with(fault, gradients(params, 1)):
            when = f"after a {age} gradient with {fault:g} in {place}"
            after = compiled(*start, faulty)
            require_finite(after[0], name="params", when=when)
            after = compiled(*after, gradients(params, 2))
            require_finite(after[0], name="params", when=f"{when}, and a healthy one")


def check_last_cast(tx: optax.GradientTransformation, params: Any) -> None:
    """Survive, with a state in float16 or bfloat16, float32 gradients that these cannot hold.

    Updates stay finite, and a healthy gradient still moves every leaf after them: a moment that
    became infinite in the last cast would be divided by for ever.
    """
    for dtype, size in ((jnp.float16, 3e5), (jnp.bfloat16, 3.39e38)):
        these = cast(params, dtype)
        state = tx.init(these)
        given = gradients(params)
        large = jax.tree.map(lambda leaf, size=size: jnp.full_like(leaf, size), given)
        when = f"after gradients of {size:g} for parameters in {jnp.dtype(dtype)}"
        for _ in range(3):
            updates, state = tx.update(large, state, these)
            require_finite(updates, name="updates", when=when)
        still = set(by_path(given))
        for seed in range(2):
            updates, state = tx.update(gradients(params, seed), state, these)
            require_finite(updates, name="updates", when=f"{when}, and a healthy one")
            still -= {path for path, leaf in by_path(updates).items() if jnp.any(leaf != 0)}
        alike, _ = tx.update(given, tx.init(these), these)
        moving = {path for path, leaf in by_path(alike).items() if jnp.any(leaf != 0)}
        require(not still & moving, f"{when}: updates{sorted(still)} are zero from then on")


_apply = jax.jit(optax.apply_updates)

# What is broken, what overflows when squared, what is the largest, and what is subnormal.
_FAULTS = (jnp.nan, jnp.inf, -jnp.inf, 1e30, 3.4e38, 1e-42)


def _with(fault: float, updates: Any) -> Iterator[tuple[str, Any]]:
    """Yield copies of a tree with a fault in the first entry of one leaf, and in all entries."""
    flat, treedef = jax.tree_util.tree_flatten_with_path(updates)
    leaves = [leaf for _, leaf in flat]
    for index, (path, leaf) in enumerate(flat):
        if leaf.size:
            first = (0,) * leaf.ndim
            broken = [*leaves[:index], leaf.at[first].set(fault), *leaves[index + 1 :]]
            yield f"updates{jax.tree_util.keystr(path)}", jax.tree.unflatten(treedef, broken)
    yield "every entry", jax.tree.map(lambda leaf: jnp.full_like(leaf, fault), updates)


def _in_all_precisions(params: Any) -> Iterator[Any]:
    """Yield the types of parameters cast to each precision, and to several in one tree."""
    for dtype in PRECISIONS:
        yield abstract(cast(params, dtype))
    leaves, treedef = jax.tree.flatten(params)
    mixed = map(cast, leaves, itertools.cycle(PRECISIONS))
    yield abstract(jax.tree.unflatten(treedef, mixed))
