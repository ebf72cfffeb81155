"""Limit how far a step can go, relative to the parameters that it moves."""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike

from gradstable._src.core.axis_name import AxisName
from gradstable._src.core.checks import check_number
from gradstable._src.core.numerics import wide
from gradstable._src.core.shown import shown
from gradstable._src.core.stateless import stateless
from gradstable._src.core.tree_checks import check_params
from gradstable._src.core.units import Units, check_units
from gradstable._src.rate.sizes import factor_to, sizes_of


@shown
def cap_trust(
    max_ratio: ArrayLike = 0.1,
    *,
    floor: ArrayLike = 1e-3,
    relative_floor: ArrayLike = 0.1,
    units: Units = "leaf",
    axis_name: AxisName = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Scale steps down to a fraction of the norm of their parameters.

    Use it as the last link of a chain, after the learning rate: it limits what is added to the
    parameters. Whatever the gradients are, the parameters then grow at most geometrically.
    Unlike a trust ratio (``gs.rate.scale_by_trust_ratio``), it leaves small steps alone, so it
    does not change a healthy run.

    .. math:: \Delta' = \Delta \cdot \min\left(1, \frac{r \max(\|\theta\|, m \sqrt{n})}
                                                        {\|\Delta\|}\right), \qquad
              m = \max(f, q\, RMS(\text{all parameters}))

    It follows that the largest RMS of a leaf, or ``f`` if that is larger, grows by no more than a
    factor of :math:`1 + r` per step. The limit holds for the step as it is returned, to within
    1e-5 in float32. In bfloat16 and float16, entries of a capped step are rounded toward zero, so
    that rounding cannot exceed it. (Adding it to bfloat16 parameters rounds once more, by one part
    in 256.)

    A step within the limit passes bit for bit. One with a NaN or infinite entry becomes zero, per
    leaf or unit. Parameters whose norm is not finite count as zero.

    Known weakness: if parameters are zero, only the floors let them move. A leaf that starts at
    zero, among others with an RMS of 1, needs at least 35 steps to reach that with the defaults; on
    its own, 83.

    Args:
      max_ratio: ``r``, dimensionless, > 0; ``inf`` caps nothing. Default 0.1: a healthy step
        with Adam and a rate of 1e-3 is a hundredth of that for weights with an RMS of 1, and
        half of it for those of a layer 2500 wide (RMS 0.02).
      floor: ``f``, the smallest RMS that parameters count as, > 0. Default 1e-3.
      relative_floor: ``q``, the same relative to the RMS of all parameters together, in [0, 1].
        Default 0.1: without it, biases and output layers that start at zero fell behind, and a
        policy ended 13 % worse than with bare AdamW (``docs/gauntlet``).
      units: the parts that are capped separately, as for ``gs.rate.cap_update_rms``.
      axis_name: mesh axes over which leaves are sharded, as for ``gs.guard``.

    Returns:
      A ``GradientTransformationExtraArgs`` without state; updates keep structure and dtypes.
      ``update`` needs ``params``.

    Raises:
      TypeError: if ``units`` is of the wrong type.
      ValueError: if a number is out of range, or, in ``update``, if ``params`` are missing.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradstable as gs
      >>> tx = gs.rate.cap_trust(0.1)
      >>> params, step = jnp.array([3.0, 4.0]), jnp.array([-1e30, 0.0])
      >>> tx.update(step, tx.init(params), params)[0].tolist()
      [-0.5, 0.0]

    Source:
      Our own: a limit instead of the ratio of You, Gitman, Ginsburg, "Large Batch Training of
      Convolutional Networks", 2017, arXiv:1708.03888.
    """
    check_number("max_ratio", max_ratio, above=0.0, finite=False)
    check_number("floor", floor, above=0.0)
    check_number("relative_floor", relative_floor, at_least=0.0, at_most=1.0)
    check_units(units)

    def apply(updates: Any, params: Any) -> Any:
        check_params(params, "cap_trust")
        sizes = sizes_of(updates, params, units, axis_name=axis_name)
        leaves, structure = jax.tree.flatten(updates)
        least = smallest_rms(sizes.params_rms, floor, relative_floor)
        each = zip(sizes.norms, sizes.counts, sizes.param_norms, strict=True)
        factors = [
            factor_to(trust_limit(param_norm, count, max_ratio, least), norm)
            for norm, count, param_norm in each
        ]
        return jax.tree.unflatten(structure, map(_shorten, leaves, factors))

    return stateless("cap_trust", apply, complex_too=True)


def smallest_rms(params_rms: jax.Array, floor: ArrayLike, relative_floor: ArrayLike) -> jax.Array:
    """Return the smallest RMS that the parameters of a leaf count as."""
    relative = jnp.asarray(relative_floor, jnp.float32) * params_rms.astype(jnp.float32)
    return jnp.maximum(jnp.asarray(floor, jnp.float32), relative)


def trust_limit(
    param_norm: jax.Array, count: jax.Array, max_ratio: ArrayLike, floor: ArrayLike
) -> jax.Array:
    """Return the largest norm allowed for a step; non-finite parameters count as 0."""
    ratio, least = jnp.asarray(max_ratio, jnp.float32), jnp.asarray(floor, jnp.float32)
    # Broken parameters must not raise a cap that is relative to them.
    known = jnp.where(jnp.isfinite(param_norm), param_norm, jnp.zeros_like(param_norm))
    return ratio * jnp.maximum(known, least * jnp.sqrt(count))


def _shorten(update: jax.Array, factor: jax.Array) -> jax.Array:
    """Return ``factor * update``, no longer than that after rounding; unchanged if 1."""
    dtype = wide(update.dtype)
    exact = update.astype(dtype) * factor.astype(dtype)
    short = toward_zero(exact, update.dtype)
    return jnp.where(factor == 1.0, update, short)


def toward_zero(exact: jax.Array, dtype: Any) -> jax.Array:
    """Cast real numbers to a narrower dtype without making any of them larger."""
    rounded = exact.astype(dtype)
    if dtype == exact.dtype:
        return rounded
    too_far = jnp.abs(rounded.astype(exact.dtype)) > jnp.abs(exact)
    return jnp.where(too_far, jnp.nextafter(rounded, jnp.zeros_like(rounded)), rounded)
