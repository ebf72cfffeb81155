"""The simplest clip: each entry on its own."""

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike

from gradstable._src.core.checks import check_number
from gradstable._src.core.shown import shown
from gradstable._src.core.stateless import elementwise


@shown
def clip_by_value(max_value: ArrayLike) -> optax.GradientTransformationExtraArgs:
    r"""Clip every entry to a fixed range: a replacement for ``optax.clip``.

    Use it as a last bound on single coordinates: it has no memory, and a broken entry does not
    affect the others. An infinite entry becomes the limit, as in optax, and a NaN becomes zero
    instead of passing. Its weaknesses: it changes the direction of the gradient (two entries in a
    ratio of 1000 to 1, both above the limit, become equal), and a gradient that is large
    everywhere stays large: the norm can reach :math:`c \sqrt n`.

    .. math:: g_i' = \max(-c, \min(c, g_i))

    Args:
      max_value: the limit ``c``, in units of the gradient, > 0. No default: it depends on the
        model; 1.0 is common.

    Returns:
      A ``GradientTransformationExtraArgs`` without state; updates keep structure and dtypes.

    Raises:
      TypeError: in ``update``, for a complex gradient.
      ValueError: if ``max_value`` is not a positive number.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradstable as gs
      >>> tx = gs.clipping.clip_by_value(1.0)
      >>> g = jnp.array([0.5, -3.0, jnp.inf, jnp.nan])
      >>> [abs(entry) for entry in tx.update(g, tx.init(g))[0].tolist()]
      [0.5, 1.0, 1.0, 0.0]

    Source:
      Common practice, as early as Mikolov, "Statistical Language Models Based on Neural
      Networks", 2012.
    """
    check_number("max_value", max_value, above=0.0)

    def clip(g: jax.Array) -> jax.Array:
        limit = jnp.asarray(max_value, g.dtype)
        return jnp.clip(g, -limit, limit)

    return elementwise("clip_by_value", clip)
