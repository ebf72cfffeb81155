"""Keep or take: selections that never multiply, so that a discarded NaN stays discarded."""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import jax
import jax.core
import jax.numpy as jnp
from jax import lax

from gradstable._src.core.numerics import is_inexact, stored
from gradstable._src.core.tree_checks import check_same_tree, leaves_by_path

Tree = TypeVar("Tree")


def select(accept: jax.Array, new: jax.Array, old: jax.Array) -> jax.Array:
    """Return ``new`` where the step is accepted, else ``old``.

    In primitives, as all that is done to each of a thousand leaves: ``jnp.where`` would be traced
    and lowered as a function that is called, in twice the time.
    """
    return lax.select_n(accept, old, new if new.dtype == old.dtype else new.astype(old.dtype))


def select_finite(accept: jax.Array, new: jax.Array, old: jax.Array) -> jax.Array:
    """Return ``new`` where the step is accepted and the entry sound as it is kept, else ``old``."""
    if not is_inexact(new):
        return select(accept, new, old)
    kept, sound = stored(new, old.dtype)
    return keep_where(accept, sound, kept, old)


def keep_where(accept: jax.Array, sound: jax.Array, new: jax.Array, old: jax.Array) -> jax.Array:
    """Return ``new`` where the step is accepted and the entry sound, else ``old``.

    Two selects are less to compile than one by a scalar that has to take the shape of the leaf.
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
    """Return ``new`` in the dtypes of ``old``, as a branch of a condition has to.

    Raises:
      ValueError: if structure or shapes differ; the message begins with ``name``.
    """
    check_same_tree(f"new {name}", leaves_by_path(new), name, leaves_by_path(old))
    return jax.tree.map(lambda n, o: jnp.asarray(n, o.dtype), new, old)


def run_branch(index: jax.Array, branches: Sequence[Callable[[], Any]]) -> Any:
    """Run one of several functions without arguments, and no other.

    Outside of ``jit`` the index is known, and ``lax.switch`` would be recompiled in every call.
    """
    if isinstance(index, jax.core.Tracer):
        return lax.switch(index, branches)
    return branches[int(index)]()


def run_if(condition: jax.Array, change: Callable[[Tree], Tree], tree: Tree) -> Tree:
    """Return ``change(tree)`` where a condition holds, else ``tree``, without moving it.

    What passes unchanged through a branch of ``lax.cond``, XLA copies to where the other branch
    puts its result; what a loop of no rounds carries stays where it is. A loop has no derivative in
    reverse mode, so that of the condition takes its place there.
    """
    if not isinstance(condition, jax.core.Tracer):
        return change(tree) if condition else tree
    leaves, structure = jax.tree.flatten(tree)

    def of_leaves(*leaves: jax.Array) -> list[jax.Array]:
        return jax.tree.leaves(change(jax.tree.unflatten(structure, leaves)))

    # What it reads besides the tree has to be an argument, or it could have no derivative. The rule
    # for that outlives the trace, so it must hold on to equations alone, and to no tracer.
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
