"""Factors for the tree, for leaves, for units: how they combine, and the norms that result."""

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike

from gradstable._src.core.numerics import largest_norm_in, statistic
from gradstable._src.core.types import Measure, Scale

# The keyword of ``update`` that passes the factor.
UNSCALE = "unscale"


class ScaleAwareTransformation(optax.GradientTransformationExtraArgs):
    """A transform whose ``update`` takes ``unscale=``: the factor that undoes a loss scale.

    A loss scale around it passes the factor on. Around any other transform it has to read and
    write all gradients itself, which gives the same result.
    """


def wrapping(
    inner: optax.GradientTransformation,
    init_fn: optax.TransformInitFn,
    update_fn: optax.TransformUpdateExtraArgsFn,
) -> optax.GradientTransformationExtraArgs:
    """Return a transform that is aware of a loss scale if the wrapped one is."""
    if isinstance(inner, ScaleAwareTransformation):
        return ScaleAwareTransformation(init_fn, update_fn)
    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def unscale_measure(measure: Measure, factor: ArrayLike | None) -> Measure:
    """Return the measure that the gradients will have after multiplication by a factor."""
    if factor is None:
        return measure
    by = statistic(factor)
    units = tuple(
        norms._replace(updates=tuple(leaf * by for leaf in norms.updates))
        for norms in measure.units
    )
    return measure._replace(norm=measure.norm * by, leaf_norms=measure.leaf_norms * by, units=units)


def unscale_factors(scale: Scale, factor: ArrayLike | None) -> Scale:
    """Return the factors of a verdict, times a factor for all."""
    if factor is None:
        return scale
    return jax.tree.map(lambda part: part * statistic(factor), scale)


def combine(first: Scale, second: Scale) -> Scale:
    """Return the factors of two rules that act on one gradient.

    Two factors below 1 combine to the smaller one, so that rules that see the same spike do not
    punish it twice. Factors above 1 multiply. The two cases agree where a factor is 1.
    """
    if isinstance(first, tuple) or isinstance(second, tuple):
        num_leaves = len(first if isinstance(first, tuple) else second)
        pairs = zip(per_leaf(first, num_leaves), per_leaf(second, num_leaves), strict=True)
        return tuple(_combine(a, b) for a, b in pairs)
    return _combine(first, second)


def per_leaf(scale: Scale, num_leaves: int) -> tuple[jax.Array, ...]:
    """Return one array of factors for each leaf, which broadcasts against it."""
    if isinstance(scale, tuple):
        return scale
    return tuple(scale[i] if scale.ndim else scale for i in range(num_leaves))


def positive(scale: Scale) -> jax.Array:
    """Whether every factor is above zero, and so none is NaN (bool scalar)."""
    parts = scale if isinstance(scale, tuple) else (scale,)
    return jnp.all(jnp.stack([jnp.asarray(True), *(jnp.all(part > 0) for part in parts)]))


def largest_norm(measure: Measure, scale: Scale) -> jax.Array:
    """Return an upper bound on the norm of any leaf after scaling (float32 scalar).

    With one factor for all, it is the norm of the tree. With factors for units, it assumes that a
    whole leaf is scaled by its largest one.
    """
    if isinstance(scale, tuple):
        scale = jnp.stack([jnp.max(part, initial=0.0) for part in scale]) if scale else jnp.ones(0)
    if not scale.ndim:
        return measure.norm * scale
    return jnp.max(measure.leaf_norms * scale, initial=0.0)


def countable(measure: Measure, scale: Scale | None = None) -> jax.Array:
    """Whether the squares of a scaled gradient can be summed without overflow (bool scalar)."""
    scale = jnp.ones((), measure.norm.dtype) if scale is None else scale
    if measure.limits is None:
        return largest_norm(measure, scale) <= largest_norm_in(jnp.float32)
    if isinstance(scale, tuple):
        scale = jnp.stack([jnp.max(part, initial=0.0) for part in scale])
    return jnp.all(measure.leaf_norms * scale <= measure.limits)


def _combine(first: jax.Array, second: jax.Array) -> jax.Array:
    clip = jnp.minimum(jnp.minimum(first, second), 1.0)
    return clip * jnp.maximum(first, 1.0) * jnp.maximum(second, 1.0)
