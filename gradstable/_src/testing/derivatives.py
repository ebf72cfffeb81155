"""Promises about derivatives through an update, as meta-learning takes them."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from gradstable._src.testing.compare import by_path, require, require_finite
from gradstable._src.testing.material import gradients

# Both modes add the same numbers in another order: in float32, and in units of the last place of a
# narrower dtype of the parameters or the state, which rounds tangents too.
_ROUNDING = 1e-3
_LAST_PLACES = 2.0


def check_derivative(tx: optax.GradientTransformation, params: Any) -> None:
    """Have a finite derivative by the gradients, the same in both modes, in ``scan`` and eagerly.

    A gradient with a NaN, which should be discarded, must not make the derivative by the others
    NaN.
    """
    params = jax.tree.map(lambda leaf: leaf + jnp.asarray(0.5, leaf.dtype), params)
    given = [gradients(params, seed) for seed in range(3)]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *given)
    sizes = jax.tree.map(jnp.ones_like, params)
    rounding = _rounding((params, jax.eval_shape(tx.init, params)))

    def move(params: Any, state: Any, sizes: Any, given: Any, hole: Any) -> tuple[Any, Any]:
        scaled = jax.tree.map(lambda g, s: g * s + hole.astype(g.dtype), given, sizes)
        updates, state = tx.update(scaled, state, params)
        return optax.apply_updates(params, updates), state

    def in_scan(sizes: Any, holes: jax.Array) -> jax.Array:
        def body(carry: Any, each: Any) -> tuple[Any, None]:
            return move(carry[0], carry[1], sizes, each[0], each[1]), None

        carry, _ = jax.lax.scan(body, (params, tx.init(params)), (stacked, holes))
        return _total(carry[0])

    def in_a_loop(sizes: Any, holes: jax.Array) -> jax.Array:
        now, state = params, tx.init(params)
        for each, hole in zip(given, holes, strict=True):
            now, state = move(now, state, sizes, each, hole)
        return _total(now)

    @jax.jit
    def both(holes: jax.Array) -> tuple[Any, jax.Array]:
        along = jax.jvp(lambda s: in_scan(s, holes), (sizes,), (sizes,))[1]
        return jax.grad(in_scan)(sizes, holes), along

    for broken in (False, True):
        holes = jnp.asarray([0.0, jnp.nan if broken else 0.0, 0.0], jnp.float32)
        when = "with NaN in the second of three gradients" if broken else "in three healthy steps"
        reverse, forward = both(holes)
        require_finite({"reverse": reverse, "forward": forward}, name="derivative", when=when)
        leaves = jax.tree.leaves(reverse)
        total = float(sum(jnp.sum(leaf) for leaf in leaves))
        # The terms of the sum, of either sign, have the rounding of their dtype.
        largest = float(sum(jnp.sum(jnp.abs(leaf)) for leaf in leaves))
        same = abs(total - float(forward)) <= rounding * (1.0 + largest)
        require(same, f"{when}: forward mode says {forward}, and reverse mode {total}")
    eager, inside = jax.grad(in_a_loop)(sizes, np.zeros(3, np.float32)), both(jnp.zeros(3))[0]
    for path, leaf in by_path(eager).items():
        same = np.allclose(leaf, by_path(inside)[path], rtol=rounding, atol=rounding)
        require(same, f"derivative{path} is {leaf} outside jit, and {inside} inside")


def _rounding(tree: Any) -> float:
    """Return how far apart two sums through the floating-point leaves of a tree can be."""
    kinds = {leaf.dtype for leaf in jax.tree.leaves(tree)}
    floats = [kind for kind in kinds if jnp.issubdtype(kind, jnp.floating)]
    return max([_ROUNDING, *(_LAST_PLACES * float(jnp.finfo(kind).eps) for kind in floats)])


def _total(params: Any) -> jax.Array:
    """Return a number in which every entry has its own weight."""
    parts = [
        jnp.sum(
            leaf.real.astype(jnp.float32) * jnp.linspace(0.5, 1.5, leaf.size).reshape(leaf.shape)
        )
        for leaf in jax.tree.leaves(params)
    ]
    return jnp.sum(jnp.stack(parts))
