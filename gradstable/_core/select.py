"""Keep or take: selections that never multiply, so that a discarded NaN stays discarded."""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import jax
import jax.core
import jax.numpy as jnp
from jax import lax

from gradstable._core.checks import check_same_tree, leaves_by_path
from gradstable._core.numerics import is_inexact

Tree = TypeVar("Tree")


def select(accept: jax.Array, new: jax.Array, old: jax.Array) -> jax.Array:
    """Return ``new`` where the step is accepted, else ``old``.

    In primitives, as all that is done to each of a thousand leaves: ``jnp.where`` would be traced
    and lowered as a function that is called, in twice the time.
    """
    return lax.select_n(accept, old, new if new.dtype == old.dtype else new.astype(old.dtype))


def select_finite(accept: jax.Array, new: jax.Array, old: jax.Array) -> jax.Array:
    """Return ``new`` where the step is accepted and the entry finite, else ``old``."""
    if not is_inexact(new):
        return select(accept, new, old)
    kept = new if new.dtype == old.dtype else new.astype(old.dtype)
    return keep_where(accept, new, kept, old)


def keep_where(accept: jax.Array, test: jax.Array, new: jax.Array, old: jax.Array) -> jax.Array:
    """Return ``new`` where the step is accepted and the entry of ``test`` finite, else ``old``.

    Two selects are less to compile than one by a scalar that has to take the shape of the leaf.
    """
    finite = jnp.isfinite(test) if jnp.iscomplexobj(test) else lax.is_finite(test)
    return lax.select_n(accept, old, lax.select_n(finite, old, new))


def select_tree(take: jax.Array, new: Tree, old: Tree, *, name: str) -> Tree:
    """Return ``new`` if ``take``, else ``old``; the result has the dtypes of ``old``.

    Raises:
      ValueError: if structure or shapes differ; the message begins with ``name``.
    """
    taken = take_types(new, old, name=name)
    return jax.tree.map(lambda n, o: jnp.where(take, n, o), taken, old)


def take_types(new: Tree, old: Tree, *, name: str) -> Tree:
    """Return ``new`` in the dtypes of ``old``, as a branch of a condition has to.

    Raises:
      ValueError: if structure or shapes differ; the message begins with ``name``.
    """
    check_same_tree(f"new {name}", leaves_by_path(new), name, leaves_by_path(old))
    return jax.tree.map(lambda n, o: jnp.asarray(n, o.dtype), new, old)


def run_branch(index: jax.Array, branches: Sequence[Callable[[], Any]]) -> Any:
    """Run one of several functions without arguments, and no other.

    Outside of ``jit`` the index is known, and ``lax.switch`` would be compiled anew in every call.
    """
    if isinstance(index, jax.core.Tracer):
        return lax.switch(index, branches)
    return branches[int(index)]()


def run_if(condition: jax.Array, change: Callable[[Tree], Tree], tree: Tree) -> Tree:
    """Return ``change(tree)`` where a condition holds, else ``tree``, without moving it.

    What passes unchanged through a branch of ``lax.cond``, XLA copies to where the other branch
    puts its result; what a loop of no rounds carries stays where it is.
    """
    if not isinstance(condition, jax.core.Tracer):
        return change(tree) if condition else tree

    def body(carry: tuple[jax.Array, Tree]) -> tuple[jax.Array, Tree]:
        return jnp.zeros_like(carry[0]), change(carry[1])

    return lax.while_loop(lambda carry: carry[0], body, (condition, tree))[1]


def own_arrays(state: Tree) -> Tree:
    """Turn the leaves of a fresh state into arrays of its own, with stable types.

    Python scalars become arrays and weak types strong ones, so that ``update`` can return
    what ``init`` did. Every leaf is a copy: it may be a parameter, be there twice, or belong
    to the transform itself (a random key), and what a compiled step is given to keep
    (``donate_argnums``) must be nobody else's.
    """

    def own(leaf: object) -> jax.Array:
        array = jnp.asarray(leaf)
        return jnp.copy(jnp.asarray(array, array.dtype))  # naming the dtype drops a weak type

    return jax.tree.map(own, state)
