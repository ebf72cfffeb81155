"""Decisions are invisible to derivatives: meta-gradients go through accepted steps only.

A verdict is a constant to the derivative: an accepted step has the derivative of the inner
optimizer, a rejected one that of doing nothing. In reverse mode a select is not enough for that: a
zero cotangent that meets the NaN of a rejected step becomes a NaN. So the cotangent is stopped
where it would leave the step, at the inputs from which the step was computed.
"""

import functools
from typing import Any, TypeVar

import jax
import jax.core
import jax.numpy as jnp
from jax import lax
from jax.custom_derivatives import SymbolicZero

from gradstable._src.core.eager import is_traced
from gradstable._src.core.equations import is_array
from gradstable._src.core.numerics import is_inexact

Tree = TypeVar("Tree")


def constant(tree: Tree) -> Tree:
    """Return a tree whose arrays are constants to every derivative."""
    leaves, structure = jax.tree.flatten(tree)
    places = [index for index, leaf in enumerate(leaves) if _has_derivative(leaf)]
    # One equation for all leaves, of which there may be a thousand.
    for index, leaf in zip(places, _still([leaves[i] for i in places]), strict=True):
        leaves[index] = leaf
    return jax.tree.unflatten(structure, leaves)


def _has_derivative(leaf: object) -> bool:
    return isinstance(leaf, jax.core.Tracer) and is_inexact(leaf)


def where_accepted(accept: jax.Array, leaves: list[Any]) -> list[Any]:
    """Return arrays unchanged, with a derivative that is zero where the step is rejected."""
    places = [index for index, leaf in enumerate(leaves) if _has_derivative(leaf)]
    gated = list(leaves)
    for index, leaf in zip(places, _gate(accept, [leaves[i] for i in places]), strict=True):
        gated[index] = leaf
    return gated


def handed_on(accept: jax.Array, new: list[Any], old: list[Any]) -> list[Any]:
    """Return the new leaves of a state, which are the old ones where the step is rejected.

    For a rejected step, their derivative is that of the old ones.
    """
    places = [
        index
        for index, (leaf, before) in enumerate(zip(new, old, strict=True))
        if _has_derivative(leaf) and leaf.dtype == before.dtype
    ]
    handed = list(new)
    moved = _hand_on(accept, [new[i] for i in places], [jnp.asarray(old[i]) for i in places])
    for index, leaf in zip(places, moved, strict=True):
        handed[index] = leaf
    return handed


def where_all_finite(updates: Tree) -> Tree:
    """Return gradients unchanged, with a derivative of zero if an entry is not finite.

    For transforms that judge entry by entry: they set such an entry to zero, but the rest of its
    unit may have been computed from it.
    """
    leaves, structure = jax.tree.flatten(updates)
    finite = [jnp.all(jnp.isfinite(leaf)) for leaf in leaves if is_array(leaf)]
    if not finite or not is_traced(leaves):
        return updates
    sound = functools.reduce(jnp.logical_and, finite)
    return jax.tree.unflatten(structure, where_accepted(sound, leaves))


@jax.custom_jvp
def _still(leaves: list[jax.Array]) -> list[jax.Array]:
    return leaves


def _no_tangents(primals: Any, tangents: Any) -> tuple[Any, Any]:
    del tangents
    # Symbolic: with an array of zeros, the root of zero would still give a NaN.
    return primals[0], [SymbolicZero(jax.typeof(leaf).to_tangent_aval()) for leaf in primals[0]]


_still.defjvp(_no_tangents, symbolic_zeros=True)


@jax.custom_jvp
def _gate(accept: jax.Array, leaves: list[jax.Array]) -> list[jax.Array]:
    del accept
    return leaves


@_gate.defjvp
def _(primals: Any, tangents: Any) -> tuple[Any, Any]:
    (accept, leaves), (_, moving) = primals, tangents
    return leaves, [lax.select_n(accept, jnp.zeros_like(t), t) for t in moving]


@jax.custom_jvp
def _hand_on(accept: jax.Array, new: list[jax.Array], old: list[jax.Array]) -> list[jax.Array]:
    del accept, old
    return new


@_hand_on.defjvp
def _(primals: Any, tangents: Any) -> tuple[Any, Any]:
    (accept, new, _), (_, moving, still) = primals, tangents
    return new, [lax.select_n(accept, s, m) for m, s in zip(moving, still, strict=True)]
