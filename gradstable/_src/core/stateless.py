"""Transforms without memory: argument checks around one function of a leaf."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from gradstable._src.core.act import keep_finite
from gradstable._src.core.derivatives import where_all_finite
from gradstable._src.core.numerics import wide
from gradstable._src.core.tree_checks import check_real, check_state, check_updates

Apply = Callable[[Any, Any], Any]


def stateless(
    factory: str, apply: Apply, *, complex_too: bool = False
) -> optax.GradientTransformationExtraArgs:
    """Make a transform of ``apply: (updates, params) -> updates``.

    The result has the dtypes of the updates, and an entry that is not finite becomes zero.
    ``params`` may be ``None``.
    """

    def init_fn(params: optax.Params) -> optax.EmptyState:
        del params
        return optax.EmptyState()

    def update_fn(
        updates: optax.Updates,
        state: optax.OptState,
        params: optax.Params | None = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, optax.EmptyState]:
        del extra_args
        check_state(state, optax.EmptyState, factory)
        updates, params = check_updates(updates, params)
        if not complex_too:
            check_real(updates, factory)
        updates = where_all_finite(updates)
        new = jax.tree.map(lambda new, old: new.astype(old.dtype), apply(updates, params), updates)
        return keep_finite(jnp.asarray(True), new, None), optax.EmptyState()

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def elementwise(
    factory: str, function: Callable[[jax.Array], jax.Array]
) -> optax.GradientTransformationExtraArgs:
    """Make a transform that applies a function to every leaf, in float32 or wider."""

    def apply(updates: Any, params: Any) -> Any:
        del params
        return jax.tree.map(lambda g: function(g.astype(wide(g.dtype))), updates)

    return stateless(factory, apply)
