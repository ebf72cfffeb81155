"""Normalized gradients: their direction, with a length of your choice."""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike

from gradstable._src.centering.by_unit import by_unit
from gradstable._src.core.axis_name import AxisName, check_axis_name
from gradstable._src.core.checks import check_number
from gradstable._src.core.layout import Within
from gradstable._src.core.norms import global_norm
from gradstable._src.core.numerics import abs_square, power_of_two, root, saturate, wide
from gradstable._src.core.shown import shown
from gradstable._src.core.stateless import stateless
from gradstable._src.core.units import Units


@shown
def normalize(
    *,
    units: Units | None = None,
    scale: ArrayLike = 1.0,
    eps: ArrayLike = 1e-6,
    axis_name: AxisName = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Divide the gradient by its norm, or each unit by its own.

    Use it where only the direction of a gradient can be trusted: the learning rate then sets the
    length of the step. It does not shrink near a minimum, so the learning rate must. For
    momentum of normalized gradients (SNGM), put ``optax.trace(0.9)`` after it.

    .. math:: g' = g \cdot \frac{c}{\|g\| + \epsilon}

    For the whole gradient it is a safe ``optax.normalize_by_update_norm``: a gradient of 1e20,
    or of 300 in float16, keeps its direction, where optax's norm overflows and its update is
    zero. One entry that is not finite zeroes everything divided by the same norm: the whole
    gradient, or its unit. Zero stays zero, even with ``eps=0``.

    A healthy gradient is read once more: 4.0 words per parameter before SGD, which moves 3
    on its own. With units it is read twice more.

    Args:
      units: the parts that are divided by their own norm, as for ``gs.guard``; ``"leaf"`` is the
        block-normalized gradient of Yu et al. Default ``None``: the norm of all leaves.
      scale: the new norm ``c``, > 0. Default 1.
      eps: added to the norm, in units of the gradient, >= 0. Default 1e-6 (optax's).
      axis_name: as for ``gs.guard``. Default ``None``.

    Returns:
      A ``GradientTransformationExtraArgs`` without state; updates keep structure and dtypes.
      Their norm is at most ``scale``.

    Raises:
      TypeError: if ``units`` is of the wrong type.
      ValueError: if a kind of units is unknown or a number is out of range.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradstable as gs
      >>> tx = gs.centering.normalize()
      >>> g = jnp.array([3e20, 4e20])
      >>> tx.update(g, tx.init(g))[0].round(3).tolist()
      [0.6000000238418579, 0.800000011920929]

    Source:
      Yu, Huang, Wang, Lin, Salakhutdinov, Carbonell, "Block-Normalized Gradient Method: An
      Empirical Study for Training Deep Neural Network", 2017, arXiv:1707.04822; Zhao, Xie, Li,
      "Stochastic Normalized Gradient Descent with Momentum for Large-Batch Training", 2020,
      arXiv:2007.13985.
    """
    check_number("scale", scale, above=0.0)
    check_number("eps", eps, at_least=0.0)
    check_axis_name(axis_name)

    def of_all(updates: Any, params: Any) -> Any:
        del params
        return _normalize_all(updates, global_norm(updates, axis_name=axis_name), scale, eps)

    if units is None:
        return stateless("normalize", of_all)

    def of_leaf(g: jax.Array, within: Within, path: str) -> jax.Array:
        del path
        power = power_of_two(within.max(jnp.abs(g)))
        norm = root(within.sum(abs_square(g * (1.0 / power))))
        return _divide(g, norm, power, scale, eps)

    return by_unit("normalize", units, of_leaf, axis_name=axis_name)


def _normalize_all(updates: Any, norm: jax.Array, scale: ArrayLike, eps: ArrayLike) -> Any:
    power = power_of_two(norm)

    def divide(g: jax.Array) -> jax.Array:
        dtype = wide(g.dtype)
        parts = ((norm * (1.0 / power)).astype(dtype), power.astype(dtype))
        return saturate(_divide(g.astype(dtype), *parts, scale, eps), g.dtype)

    return jax.tree.map(divide, updates)


def _divide(
    g: jax.Array, norm: jax.Array, power: jax.Array, scale: ArrayLike, eps: ArrayLike
) -> jax.Array:
    """Return ``scale * g / (norm * power + eps)``; zero for 0 / 0 and where it is not finite."""
    sound = jnp.isfinite(norm) & (norm > 0.0)
    denominator = norm + jnp.asarray(eps, g.dtype) / power
    # Selected before the division too: a discarded value must not make a derivative NaN.
    factor = jnp.asarray(scale, g.dtype) / jnp.where(sound, denominator, jnp.ones_like(norm))
    # Twice a half: see statistics.py.
    return jnp.where(sound, (g * (0.5 / power)) * (2.0 * factor), 0.0)
