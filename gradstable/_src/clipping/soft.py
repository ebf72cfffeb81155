"""Soft clipping: a curve that is linear for small entries and flat for large ones."""

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike

from gradstable._src.core.checks import check_choice, check_number
from gradstable._src.core.compress import CURVES, Curve
from gradstable._src.core.numerics import saturate
from gradstable._src.core.shown import shown
from gradstable._src.core.stateless import elementwise


@shown
def soft_clip(kind: Curve, *, scale: ArrayLike = 1.0) -> optax.GradientTransformationExtraArgs:
    r"""Compress every entry by a smooth curve, in place of a hard clip by value.

    Use it on the updates of an optimizer, whose size is known (about 1 before the learning
    rate), as heavyball does, or on gradients after ``gs.centering.standardize``. On raw gradients
    you must know the scale. Every entry is compressed on its own, so the direction changes.

    .. math::
      g' &= c \cdot f(g / c) \\
      f_{tanh}(x) &= \tanh x \\
      f_{softsign}(x) &= 2 x / (1 + |x|) \\
      f_{mu\_law}(x) &= \operatorname{sign}(x) \log(1 + 127 |x|) / \log 128 \\
      f_{trust\_region}(x) &= \operatorname{clip}_{\pm 2}\big(1.5 (0.9 \tanh y
        + 0.1 \operatorname{sign}(y) \log(1 + |y|))\big), \quad y = x / 1.5

    With ``scale=1`` these are heavyball's curves. The result is within ``scale`` for tanh, and
    within twice that for softsign and trust_region. mu_law has no bound except that of the dtype,
    19.3 times ``scale`` in float32. Mind the slope at zero: 1 for tanh and trust_region, but 2 for
    softsign and 26.2 for mu_law, which thus *enlarges* everything below ``scale``.

    Args:
      kind: ``"tanh"``, ``"softsign"``, ``"mu_law"`` or ``"trust_region"``.
      scale: the size ``c`` at which the curve bends, in units of the gradient, > 0. Default 1
        (heavyball's, for updates).

    Returns:
      A ``GradientTransformationExtraArgs`` without state; updates keep structure and dtypes. An
      entry that is not finite becomes zero.

    Raises:
      ValueError: if ``kind`` is unknown or ``scale`` is not positive.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradstable as gs
      >>> tx = gs.clipping.soft_clip("tanh", scale=2.0)
      >>> g = jnp.array([0.1, -2.0, 1e30, jnp.nan])
      >>> tx.update(g, tx.init(g))[0].round(3).tolist()
      [0.1, -1.523, 2.0, 0.0]

    Source:
      heavyball 3.2.1 (Lucas Nestler): ``trust_region_clip_``, ``softsign_compress`` and
      ``mu_law_compress``, the last after Pooladzandi's PSGD; tanh is its limit.
    """
    check_choice("kind", kind, tuple(CURVES))
    check_number("scale", scale, above=0.0)
    curve = CURVES[kind]

    def compress(g: jax.Array) -> jax.Array:
        c = jnp.asarray(scale, g.dtype)
        # Far above the scale, where the curves are (nearly) flat, the quotient can overflow.
        compressed = c * curve(saturate(g / c, g.dtype))
        return jnp.where(jnp.isfinite(g), saturate(compressed, g.dtype), 0.0)

    return elementwise("soft_clip", compress)
