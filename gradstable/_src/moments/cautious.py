"""Cautious optimizers: never step against the current gradient."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from gradstable._src.core.axis_name import AxisName, check_axis_name
from gradstable._src.core.layout import splits_of, together
from gradstable._src.core.names import answers_as_inner
from gradstable._src.core.numerics import increment, saturate, wide
from gradstable._src.core.order import inside
from gradstable._src.core.shown import shown
from gradstable._src.core.tree_checks import check_real, check_state, check_updates

# Floor on the share of kept entries, by which those entries are divided (as in timm).
_LEAST_SHARE = 1e-3


@answers_as_inner
class CautiousState(NamedTuple):
    """State of ``cautious``."""

    calls: jax.Array  # shape=(), dtype=jnp.int32, update calls
    wrapped_state: Any


@shown
def cautious(
    inner: optax.GradientTransformation,
    *,
    descends: bool = False,
    axis_name: AxisName = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Drop the entries of an update that point against the gradient, and enlarge the rest.

    Use it around an estimator with momentum: ``gs.moments.cautious(gs.moments.scale_by_adam())``,
    before weight decay and learning rate. When the gradients change direction, entries that the
    momentum still pushes the old way are dropped immediately.

    .. math::
      m = [u \cdot g > 0], \qquad u' = \frac{m}{\max(mean(m), 10^{-3})} u

    with the mean over each leaf. ``inner`` must give a direction of *ascent*, as all
    ``scale_by_*`` do. For a whole optimizer, whose updates point downhill, pass ``descends=True``;
    otherwise exactly the wrong entries are kept.

    The step can be 1000 times that of ``inner``: if one entry in a thousand agrees with its
    gradient, that entry alone is scaled up by 1000. Cap the update afterwards if that matters.

    Args:
      inner: any optax transform. It sees all gradients unchanged.
      descends: whether updates of ``inner`` are meant to be added to the parameters directly, like
        those of ``optax.adamw(3e-4)``. Default ``False``.
      axis_name: as for ``gs.guard``. Default ``None``.

    Returns:
      A ``GradientTransformationExtraArgs`` with a ``CautiousState``; updates have the dtypes that
      ``inner`` gives them, and are zero where the gradient or the update is NaN.

    Raises:
      TypeError: if ``inner`` is not a transform.
      ValueError: if it contains a rollback or ``kahan``, whose updates must not be changed.

    Example:
      >>> import jax.numpy as jnp
      >>> import optax
      >>> import gradstable as gs
      >>> tx = gs.moments.cautious(optax.trace(0.9))
      >>> _, state = tx.update(jnp.array([1.0, 1.0]), tx.init(jnp.ones(2)))
      >>> [round(x, 3) for x in tx.update(jnp.array([1.0, -0.1]), state)[0].tolist()]
      [3.8, 0.0]

    Source:
      Liang et al., "Cautious Optimizers: Improving Training with One Line of Code", 2024,
      arXiv:2411.16085; the least mean as in timm.
    """
    full = inside("cautious", inner)
    check_axis_name(axis_name)

    def init_fn(params: optax.Params) -> CautiousState:
        return CautiousState(calls=jnp.zeros((), jnp.int32), wrapped_state=full.init(params))

    def update_fn(
        updates: optax.Updates,
        state: optax.OptState,
        params: optax.Params | None = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, CautiousState]:
        old = check_state(state, CautiousState, "cautious")
        given, _ = check_updates(updates, params)
        check_real(given, "cautious")
        updates, inner_state = full.update(given, old.wrapped_state, params, **extra_args)
        leaves, structure = jax.tree.flatten(updates)
        agree = [
            _agrees(u, g, descends=descends)
            for u, g in zip(leaves, jax.tree.leaves(given), strict=True)
        ]
        splits = splits_of(given, axis_name)
        counts = together([jnp.sum(kept, dtype=jnp.float32) for kept in agree], splits)
        shares = [
            count / max(u.size * split.parts, 1)
            for count, u, split in zip(counts, leaves, splits, strict=True)
        ]
        new = jax.tree.unflatten(structure, list(map(_enlarge, leaves, agree, shares)))
        return new, CautiousState(calls=increment(old.calls), wrapped_state=inner_state)

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def _agrees(u: jax.Array, g: jax.Array, *, descends: bool) -> jax.Array:
    x = u.astype(wide(u.dtype))
    # Compare signs, since the product of two small numbers can underflow to zero.
    uphill = jnp.sign(x) * jnp.sign(g).astype(x.dtype)
    return (uphill < 0) if descends else (uphill > 0)


def _enlarge(u: jax.Array, agrees: jax.Array, share: jax.Array) -> jax.Array:
    x = u.astype(wide(u.dtype))
    factor = 1.0 / jnp.maximum(share, _LEAST_SHARE)
    enlarged = jnp.where(agrees, x * factor.astype(x.dtype), jnp.zeros_like(x))
    return saturate(enlarged, u.dtype)
