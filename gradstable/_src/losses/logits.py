"""Logits that drift or run away: the z-loss, and the soft cap."""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from gradstable._src.core.checks import check_number
from gradstable._src.core.numerics import wide
from gradstable._src.core.tree_checks import check_floating
from gradstable._src.losses.log_partition import Axis, partition

_FLAT = 64.0  # from here on tanh and its slope are 1 and 0, even in float64


def z_loss(
    logits: jax.Array,
    *,
    weight: ArrayLike = 1e-4,
    axis: Axis = -1,
    where: jax.Array | None = None,
) -> jax.Array:
    r"""Penalize a softmax whose normalizer drifts away from 1.

    Use it together with a cross-entropy, which does not constrain a shift of all logits: they
    drift until low precision cannot tell them apart, and the loss diverges late in a long run.
    Its own gradient has no bound: where ``log Z`` is above ``1 / (2 * weight)``, 5000 with the
    default, it pulls harder than the cross-entropy can, so use it from the start and not after
    the logits have exploded.

    .. math:: c \, (\log Z)^2, \quad Z = \sum_i e^{x_i}, \qquad
      \nabla_x = 2 c \, \log Z \, \mathrm{softmax}(x)

    Args:
      logits: array ``[..., classes, ...]``, floating-point.
      weight: ``c``, >= 0. Default 1e-4 (PaLM's).
      axis: the axis of classes, a tuple of several, or ``None`` for all. Default: the last.
      where: bool of the shape of the logits (classes that count) or without the axis of
        classes (rows that count). Default: all except logits of ``-inf``.

    Returns:
      One number per row, float32 (wider for wider logits), without the axis of classes. 0 for a
      row in which nothing counts; reduce with ``gs.losses.masked_mean``.

    Raises:
      TypeError: if logits are not floating-point, or ``axis`` is not an integer.
      ValueError: if ``weight`` or ``axis`` is out of range, or ``where`` has a different shape.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradstable as gs
      >>> gs.losses.z_loss(jnp.array([[100.0, 0.0], [-jnp.inf, -jnp.inf]])).tolist()
      [1.0, 0.0]

    Source:
      Chowdhery et al., "PaLM: Scaling Language Modeling with Pathways", 2022,
      arXiv:2204.02311, section 5.
    """
    check_number("weight", weight, at_least=0.0)
    return square_log_z(partition(jnp.asarray(logits), axis, where).log_z, weight)


def square_log_z(log_z: jax.Array, weight: ArrayLike) -> jax.Array:
    """Return the z-loss of log-partition functions."""
    # In this order it does not overflow when only the square would.
    return jnp.asarray(weight, log_z.dtype) * log_z * log_z


def soft_cap(logits: jax.Array, *, cap: ArrayLike) -> jax.Array:
    r"""Bend logits smoothly so that none exceeds a cap.

    Use it on attention logits, or on those of the classes, if they grow until the softmax
    saturates. Beyond the cap the gradient vanishes: at five times the cap it is 1.8e-4, at
    twenty times it is 0 in float32, and a logit that jumped there stays there. A fused attention
    kernel must support it.

    .. math:: x' = c \tanh(x / c), \qquad |x'| \le c, \quad
      \frac{\partial x'}{\partial x} = 1 - (x'/c)^2

    Args:
      logits: array of any shape, floating-point.
      cap: the bound ``c``, in units of the logits, > 0. No default: Gemma 2 uses 50 for
        attention and 30 for the classes.

    Returns:
      Logits of the same shape and dtype, computed in float32 and rounded.

    Raises:
      TypeError: if logits are not floating-point.
      ValueError: if ``cap`` is not a positive number.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradstable as gs
      >>> gs.losses.soft_cap(jnp.array([1.0, 50.0, jnp.inf]), cap=50.0).tolist()
      [0.99987, 38.0797, 50.0]

    Source:
      Gemma Team, "Gemma 2: Improving Open Language Models at a Practical Size", 2024,
      arXiv:2408.00118, section 2.
    """
    check_number("cap", cap, above=0.0)
    logits = jnp.asarray(logits)
    check_floating("logits", logits)
    x = logits.astype(wide(logits.dtype))
    limit = jnp.asarray(cap, x.dtype)
    # Far out, tanh is exactly 1; an infinite quotient would make the derivative by cap NaN.
    near = jnp.abs(x) / limit < _FLAT
    bent = limit * jnp.tanh(jnp.where(near, x, jnp.zeros_like(x)) / limit)
    return jnp.where(near, bent, limit * jnp.sign(x)).astype(logits.dtype)
