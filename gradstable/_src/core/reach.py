"""Which gradients an optimizer reads: those that it drops can do no harm, and are not judged.

``optax.partition`` with ``optax.set_to_zero`` drops the gradients of frozen leaves. A NaN in one of
them must not reject a step, and its size must not count in the norm.
"""

from collections.abc import Hashable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from gradstable._src.core.act import is_gradient
from gradstable._src.core.eager import is_traced
from gradstable._src.core.equations import Equations, Update, is_array, trace
from gradstable._src.core.tree_checks import no_gradient
from gradstable._src.core.wrapped import explaining

# Sets of argument types among which one eager loop may alternate.
_REMEMBERED = 8


class Inner(NamedTuple):
    """An inner transform and an analysis of its arguments, before it runs.

    Attributes:
      update: its update, with the extra arguments of this step.
      equations: the same as equations, traced once; ``None`` outside ``jit``.
      judged: the gradients, with zeros in place of those that it does not read.
    """

    update: Update
    equations: Equations | None
    judged: Any


class Reach:
    """What one transform reads, for each combination of argument types.

    Outside ``jit`` an update would be traced in every step only to see what it reads, so the result
    is cached. It depends only on types.
    """

    def __init__(self) -> None:
        self._known: dict[Hashable, tuple[bool, ...]] = {}

    def look(
        self,
        inner: optax.GradientTransformationExtraArgs,
        updates: Any,
        state: Any,
        params: Any,
        extra_args: dict[str, Any],
    ) -> Inner:
        """Return an inner transform as it will run, and which of the gradients it reads."""

        def update(updates: Any, state: Any, params: Any) -> tuple[Any, Any]:
            return inner.update(updates, state, params, **extra_args)

        trees, equations = (updates, state, params), None
        with explaining(updates, params):
            if is_traced(trees, extra_args):
                equations = trace(update, *trees)
                read = _read_by(equations, updates)
            else:
                read = self._remembered(update, trees, extra_args)
        return Inner(update, equations, _judged(updates, read))

    def _remembered(
        self, update: Update, trees: tuple[Any, Any, Any], extra_args: Any
    ) -> tuple[bool, ...]:
        key = _types((trees, extra_args))
        if key not in self._known:
            if len(self._known) == _REMEMBERED:
                self._known.clear()
            self._known[key] = _try(update, trees)
        return self._known[key]


def _read_by(equations: Equations, updates: Any) -> tuple[bool, ...]:
    """Return, for each leaf of the gradients, whether an update reads it.

    Raises:
      TypeError: if it computes with a leaf that is not a floating-point array, with its path.
    """
    flat = jax.tree_util.tree_leaves_with_path(updates)
    leaves = [leaf for _, leaf in flat]
    changed = equations.transformed(leaves)
    for (path, leaf), computes in zip(flat, changed, strict=True):
        if computes and not is_gradient(leaf):
            raise no_gradient(jax.tree_util.keystr(path), jnp.result_type(leaf))
    return tuple(equations.read(leaves))


def _judged(updates: Any, read: tuple[bool, ...]) -> Any:
    if all(read) and all(map(is_gradient, jax.tree.leaves(updates))):
        return updates
    leaves, structure = jax.tree.flatten(updates)
    kept = [
        leaf if reads and is_gradient(leaf) else _nothing(leaf)
        for leaf, reads in zip(leaves, read, strict=True)
    ]
    return jax.tree.unflatten(structure, kept)


def _nothing(leaf: Any) -> jax.Array:
    if is_gradient(leaf):
        return jnp.zeros_like(leaf)
    return jnp.zeros(getattr(leaf, "shape", ()), jnp.float32)


def _try(update: Update, trees: tuple[Any, Any, Any]) -> tuple[bool, ...]:
    try:
        equations = trace(update, *trees)
    except (jax.errors.JAXTypeError, jax.errors.JAXIndexError):
        # It depends on values, as only code outside jit can, so what it reads is unknown.
        return (True,) * len(jax.tree.leaves(trees[0]))
    return _read_by(equations, trees[0])


def _types(tree: Any) -> Hashable:
    leaves, structure = jax.tree.flatten(tree)
    return structure, tuple(
        (jnp.shape(leaf), jnp.result_type(leaf)) if is_array(leaf) else id(leaf) for leaf in leaves
    )
