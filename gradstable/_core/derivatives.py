"""What a derivative sees of a decision: nothing. Meta-gradients go through accepted steps only.

A verdict is a constant to the derivative: an accepted step has that of the optimizer inside, a
rejected one that of doing nothing. Selecting does not suffice for that in reverse mode: a zero
cotangent that meets the NaN of a rejected step is a NaN. So it is stopped where it would leave the
step, at what the step was computed from.
"""

import functools
from typing import Any, TypeVar

import jax
import jax.core
import jax.numpy as jnp
from jax import lax

from gradstable._core.equations import is_array
from gradstable._core.numerics import is_inexact

Tree = TypeVar("Tree")


def constant(tree: Tree) -> Tree:
    """Return a tree whose arrays are constants to any derivative."""

    def stop(leaf: Any) -> Any:
        return lax.stop_gradient(leaf) if isinstance(leaf, jax.core.Tracer) else leaf

    return jax.tree.map(stop, tree)


def where_accepted(accept: jax.Array, leaves: list[Any]) -> list[Any]:
    """Return arrays as they are, with a derivative that is zero where the step is rejected."""
    places = [
        index
        for index, leaf in enumerate(leaves)
        if isinstance(leaf, jax.core.Tracer) and is_inexact(leaf)
    ]
    gated = list(leaves)
    for index, leaf in zip(places, _gate(accept, [leaves[i] for i in places]), strict=True):
        gated[index] = leaf
    return gated


def where_all_finite(updates: Tree) -> Tree:
    """Return gradients as they are, with a derivative of zero if an entry is not finite.

    For what judges entry by entry: zero is what becomes of such an entry, but the rest of its unit
    may have been computed from it.
    """
    leaves, structure = jax.tree.flatten(updates)
    finite = [jnp.all(jnp.isfinite(leaf)) for leaf in leaves if is_array(leaf)]
    if not finite or not any(isinstance(leaf, jax.core.Tracer) for leaf in leaves):
        return updates
    sound = functools.reduce(jnp.logical_and, finite)
    return jax.tree.unflatten(structure, where_accepted(sound, leaves))


@jax.custom_jvp
def _gate(accept: jax.Array, leaves: list[jax.Array]) -> list[jax.Array]:
    del accept
    return leaves


@_gate.defjvp
def _(primals: Any, tangents: Any) -> tuple[Any, Any]:
    (accept, leaves), (_, moving) = primals, tangents
    return leaves, [lax.select_n(accept, jnp.zeros_like(t), t) for t in moving]
