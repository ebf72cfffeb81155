"""Clippy: no weight changes by more than a fraction of itself in one step."""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike

from gradstable._src.core.axis_name import AxisName, check_axis_name
from gradstable._src.core.checks import check_number
from gradstable._src.core.equations import with_gradient
from gradstable._src.core.layout import Within, withins_of
from gradstable._src.core.numerics import wide
from gradstable._src.core.shown import shown
from gradstable._src.core.stateless import stateless
from gradstable._src.core.tree_checks import check_params
from gradstable._src.core.units import Units, check_units


@shown
def clip_by_clippy(
    *,
    relative: ArrayLike = 0.1,
    absolute: ArrayLike = 1e-7,
    units: Units = "leaf",
    axis_name: AxisName = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Scale every leaf until no weight changes by more than a fraction of itself (Clippy).

    Put it after the learning rate, as the last link of a chain: it works on the update that
    will be added. It needs ``params``. A norm hardly notices a change in a few coordinates, but
    Clippy goes by the worst one.

    .. math:: u' = s\,u, \qquad
              s = \min\left(1, \min_i \frac{\sigma_{rel} |\theta_i| + \sigma_{abs}}{|u_i|}\right)

    for every leaf with entries :math:`u_i`; where :math:`u_i = 0` there is nothing to limit. A
    leaf with a NaN or infinite entry becomes zero, and the others are unaffected.

    Known weakness: the smallest weight holds back its whole leaf. At the defaults, updates of 1e-3
    are scaled by 1.4e-4 in a normally distributed matrix of 256 x 256 weights with a standard
    deviation of 0.02, and by 1e-4 where a weight is zero; a bias initialized to zeros needs 98
    steps to break free. Raise ``absolute`` to the size of an update that is harmless anywhere, such
    as 1e-3.

    The clip itself is as published, and works after any optimizer. The published optimizer is
    Adagrad with an accumulator updated after the step; ``optax.adagrad`` updates it before.

    Args:
      relative: the fraction :math:`\sigma_{rel}` of a weight, dimensionless, >= 0. Default 0.1,
        as in the authors' code.
      absolute: the change :math:`\sigma_{abs}` that is allowed for any weight, in units of the
        parameters, >= 0. Default 1e-7, as in the authors' code.
      units: the parts of a leaf that are scaled separately, as for ``gs.guard``: ``"layer"`` if
        layers are stacked in one leaf. Default ``"leaf"``, as published.
      axis_name: as for ``gs.guard``. Default ``None``.

    Returns:
      A ``GradientTransformationExtraArgs`` without state; updates keep structure and dtypes.

    Raises:
      TypeError: if ``units`` is of the wrong type; in ``update``, for complex updates.
      ValueError: if a number is negative or a kind of units is unknown; in ``update``, if
        ``params`` are missing.

    Example:
      >>> import jax.numpy as jnp
      >>> import optax
      >>> import gradstable as gs
      >>> tx = optax.chain(optax.adagrad(0.1), gs.clipping.clip_by_clippy(absolute=1e-3))
      >>> params = jnp.array([1.0, 2.0])
      >>> updates, _ = tx.update(jnp.array([1e9, 1.0]), tx.init(params), params)
      >>> bool((jnp.abs(updates) <= 0.1 * params + 1e-3).all())
      True

    Source:
      Tang et al., "Improving Training Stability for Multitask Ranking Models in Recommender
      Systems", 2023, arXiv:2302.09178; defaults from TensorFlow Recommenders.
    """
    check_number("relative", relative, at_least=0.0)
    check_number("absolute", absolute, at_least=0.0)
    check_units(units)
    check_axis_name(axis_name)

    def apply(updates: Any, params: Any) -> Any:
        check_params(params, "clip_by_clippy")
        leaves, structure = jax.tree.flatten(updates)
        beside = jax.tree.leaves(with_gradient(params, updates))
        triples = zip(leaves, beside, withins_of(updates, units, axis_name), strict=True)
        shrunk = [_shrink(u, theta, within, relative, absolute) for u, theta, within in triples]
        return jax.tree.unflatten(structure, shrunk)

    return stateless("clip_by_clippy", apply)


def _shrink(
    update: jax.Array,
    param: jax.Array,
    within: Within,
    relative: ArrayLike,
    absolute: ArrayLike,
) -> jax.Array:
    u = update.astype(wide(update.dtype))
    size = jnp.abs(u)
    limit = relative * jnp.abs(param.astype(u.dtype)) + absolute
    room = jnp.where(size > 0, limit / jnp.where(size > 0, size, 1.0), 1.0)
    room = jnp.where(jnp.isfinite(size), room, 0.0)
    scale = within.min(room, initial=1.0)
    return jnp.where(scale == 1.0, update, (scale * u).astype(update.dtype))
