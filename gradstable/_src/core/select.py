"""Select the new or the old value, never by a product, so that a discarded NaN stays discarded."""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import jax
import jax.core
import jax.numpy as jnp
from jax import lax

from gradstable._src.core.numerics import is_inexact, stored
from gradstable._src.core.tree_checks import check_same_tree, leaves_by_path

Tree = TypeVar("Tree")

# Compiled, so that jax_debug_nans does not see a NaN that is not selected.
compiled_where = jax.jit(jnp.where)


def select(accept: jax.Array, new: jax.Array, old: jax.Array) -> jax.Array:
    """Return ``new`` where the step is accepted, else ``old``.

    It uses primitives, like everything that runs once per leaf, for a thousand leaves:
    ``jnp.where`` would be traced and lowered as a function call, which takes twice as long.
    """
    return lax.select_n(accept, old, new if new.dtype == old.dtype else new.astype(old.dtype))


def select_finite(accept: jax.Array, new: jax.Array, old: jax.Array) -> jax.Array:
    """Return ``new`` where the step is accepted and the stored entry sound, else ``old``."""
    if not is_inexact(new):
        return select(accept, new, old)
    kept, sound = stored(new, old.dtype)
    return keep_where(accept, sound, kept, old)


def keep_where(accept: jax.Array, sound: jax.Array, new: jax.Array, old: jax.Array) -> jax.Array:
    """Return ``new`` where the step is accepted and the entry sound, else ``old``.

    Two selects compile faster than one by a scalar that must be broadcast to the leaf's shape.
    """
    return lax.select_n(accept, old, lax.select_n(sound, old, new))


def select_tree(take: jax.Array, new: Tree, old: Tree, *, name: str) -> Tree:
    """Return ``new`` if ``take``, else ``old``; the result has the dtypes of ``old``.

    Raises:
      ValueError: if structure or shapes differ; the message begins with ``name``.
    """
    taken = take_types(new, old, name=name)
    return jax.tree.map(lambda n, o: jnp.where(take, n, o), taken, old)


def take_types(new: Tree, old: Tree, *, name: str) -> Tree:
    """Return ``new`` in the dtypes of ``old``, as a branch of a condition must.

    Raises:
      ValueError: if structure or shapes differ; the message begins with ``name``.
    """
    check_same_tree(f"new {name}", leaves_by_path(new), name, leaves_by_path(old))
    return jax.tree.map(lambda n, o: jnp.asarray(n, o.dtype), new, old)


def run_branch(index: jax.Array, branches: Sequence[Callable[[], Any]]) -> Any:
    """Run one of several functions without arguments, and none of the others.

    Outside ``jit`` the index is known, and ``lax.switch`` would be recompiled in every call.
    """
    if isinstance(index, jax.core.Tracer):
        return lax.switch(index, branches)
    return branches[int(index)]()


def run_if(condition: jax.Array, change: Callable[[Tree], Tree], tree: Tree) -> Tree:
    """Return ``change(tree)`` if a condition holds, else ``tree``, without moving it.

    XLA copies a value that passes unchanged through a branch of ``lax.cond`` to where the other
    branch puts its result, but the carry of a loop with no iterations stays in place. A loop has no
    reverse-mode derivative, so the derivative of ``lax.cond`` takes its place.
    """
    if not isinstance(condition, jax.core.Tracer):
        return change(tree) if condition else tree
    leaves, structure = jax.tree.flatten(tree)

    def of_leaves(*leaves: jax.Array) -> list[jax.Array]:
        return jax.tree.leaves(change(jax.tree.unflatten(structure, leaves)))

    # Anything else that it reads must be an argument, or there would be no derivative for it. The
    # derivative rule outlives the trace, so it must keep only equations, and no tracers.
    closed = jax.make_jaxpr(of_leaves)(*leaves)
    jaxpr, read = closed.jaxpr, list(closed.consts)

    def changed(consts: Sequence[jax.Array], leaves: Sequence[jax.Array]) -> list[jax.Array]:
        return jax.core.eval_jaxpr(jaxpr, consts, *leaves)

    @jax.custom_jvp
    def run(
        condition: jax.Array, consts: list[jax.Array], leaves: list[jax.Array]
    ) -> list[jax.Array]:
        def body(carry: tuple[jax.Array, list[jax.Array]]) -> tuple[jax.Array, list[jax.Array]]:
            return jnp.zeros_like(carry[0]), changed(consts, carry[1])

        return lax.while_loop(lambda carry: carry[0], body, (condition, leaves))[1]

    @run.defjvp
    def _(primals: Any, tangents: Any) -> tuple[Any, Any]:
        condition, *args = primals
        _, *moving = tangents

        def move() -> list[jax.Array]:
            return jax.jvp(changed, tuple(args), tuple(moving))[1]

        return run(condition, *args), lax.cond(condition, move, lambda: moving[1])

    return jax.tree.unflatten(structure, run(condition, read, leaves))


def own_arrays(state: Tree) -> Tree:
    """Turn the leaves of a fresh state into arrays that it owns, with stable types.

    Python scalars become arrays and weak types become strong, so that ``update`` can return the
    same types as ``init``. Every leaf is copied: it could be a parameter, occur twice, or belong to
    the transform itself (a random key), and arrays donated to a compiled step (``donate_argnums``)
    must not be shared.
    """

    def own(leaf: object) -> jax.Array:
        array = jnp.asarray(leaf)
        return jnp.copy(jnp.asarray(array, array.dtype))  # naming the dtype drops a weak type

    return jax.tree.map(own, state)
