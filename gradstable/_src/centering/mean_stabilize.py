"""Mean stabilization: remove the mean, then tame the rest."""

from typing import Literal, TypeAlias

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike

from gradstable._src.centering.by_unit import by_unit
from gradstable._src.centering.statistics import Spread, centered, scores, spread_of
from gradstable._src.core.axis_name import AxisName
from gradstable._src.core.checks import check_choice, check_number
from gradstable._src.core.compress import CURVES, Curve
from gradstable._src.core.layout import Within
from gradstable._src.core.shown import shown
from gradstable._src.core.units import Units

Adjust: TypeAlias = Literal["none", "snr", "norm"] | Curve

_SIZED = ("none", "snr")
ADJUSTMENTS = (*_SIZED, "norm", *CURVES)


@shown
def mean_stabilize(
    adjust: Adjust = "none",
    *,
    units: Units = "flax",
    eps: ArrayLike = 1e-8,
    axis_name: AxisName = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Remove the mean of each unit of the gradient, and adjust the rest.

    Use it where gradients share a large offset that drowns out their differences, before an
    adaptive moment estimator::

        optax.chain(gs.centering.mean_stabilize("tanh"), gs.moments.scale_by_adam(),
        optax.scale(-1e-3))

    Do not use it if the common direction is what should be learned: it is removed, whatever its
    size.

    There are three steps. The first computes the mean ``m`` and the standard deviation ``s`` of
    each unit, and removes the mean. The second adjusts the rest, with
    :math:`z = (g - m) / (s + \epsilon)`. The third is whatever follows in the chain.

    .. math::
      \text{none: } & g - m \\
      \text{snr: } & (g - m) \cdot s^2 / (s^2 + m^2) \\
      \text{norm: } & z \\
      \text{tanh, softsign, mu\_law, trust\_region: } & f(z) \text{ as in } \texttt{soft\_clip}

    ``snr`` is the gain of a Wiener filter: the share of the differences in the power of the
    unit, between 0 and 1, so that a unit that is nearly all offset contributes little. ``snr`` and
    ``none`` keep the scale of the gradient and limit nothing. The results of the others are
    dimensionless: an entry is within :math:`\sqrt{n - 1}` for ``norm``, 1 for ``tanh``, 2 for
    ``softsign`` and ``trust_region``, and :math:`\log(1 + 127 \sqrt{n - 1}) / \log 128` for
    ``mu_law``, where ``n`` is the number of entries of a unit. Their steps do not shrink near a
    minimum, and one exploding entry among a thousand reduces the others to 6 % of their size.

    A unit of one or two entries keeps its mean, since nothing else would be left; ``s`` is its
    root mean square. A unit whose entries are equal, to a millionth of their size, becomes
    zero. So does a unit with an entry that is not finite, without affecting the others.

    It reads the gradients three more times: 6.0 words per parameter before SGD, which moves 3
    on its own, and 13.1 before Adam, which moves 10. A curve before Adam costs 15.0 and one copy
    of the gradient, since both moments read it.

    Args:
      adjust: ``"none"``, ``"norm"``, ``"snr"``, ``"tanh"``, ``"softsign"``, ``"mu_law"`` or
        ``"trust_region"``. Default ``"none"``.
      units: the parts that each have their own mean, as for ``gs.guard``. Default ``"flax"``:
        output rows of weights and whole vectors, separately for each layer of a stacked leaf.
      eps: added to the deviation where it divides, in units of the gradient, >= 0. Default
        1e-8, as for ``gs.centering.standardize``.
      axis_name: as for ``gs.guard``. Default ``None``.

    Returns:
      A ``GradientTransformationExtraArgs`` without state; updates keep structure and dtypes.
      A value too large for its dtype becomes the largest number.

    Raises:
      TypeError: if ``units`` is of the wrong type.
      ValueError: if ``adjust`` or a kind of units is unknown, or ``eps`` is out of range.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradstable as gs
      >>> tx = gs.centering.mean_stabilize("tanh")
      >>> g = jnp.array([598.0, 611.0, 624.0])
      >>> tx.update(g, tx.init(g))[0].round(3).tolist()
      [-0.841, 0.0, 0.841]

    Source:
      Our own, from three known parts: gradient centralization (Yong et al., 2020,
      arXiv:2004.01461), the standard score, and the curves of heavyball's update clipping.
    """
    check_choice("adjust", adjust, ADJUSTMENTS)
    check_number("eps", eps, at_least=0.0)

    def of_leaf(g: jax.Array, within: Within, path: str) -> jax.Array:
        del path
        spread = spread_of(g, within)
        if adjust in _SIZED:
            return _sized(g, spread, wiener=adjust == "snr")
        z = scores(g, spread, eps)
        return CURVES[adjust](z) if adjust in CURVES else z

    return by_unit("mean_stabilize", units, of_leaf, axis_name=axis_name)


def _sized(g: jax.Array, spread: Spread, *, wiener: bool) -> jax.Array:
    """Return the rest after removing the mean, in units of the gradient."""
    rest = centered(g, spread.mean, spread.power)
    if wiener:
        # std > 2**-20 |mean| unless it is 0, so the squares do not vanish.
        power = spread.std**2
        total = power + spread.mean**2
        rest = rest * jnp.where(total > 0.0, power / total, 0.0)
    return jnp.where(spread.sound & (spread.std > 0.0), rest, 0.0)
