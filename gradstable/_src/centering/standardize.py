"""Standardized gradients: every unit gets mean zero and standard deviation one."""

import jax
import optax
from jax.typing import ArrayLike

from gradstable._src.centering.by_unit import by_unit
from gradstable._src.centering.statistics import scores, spread_of
from gradstable._src.core.axis_name import AxisName
from gradstable._src.core.checks import check_number
from gradstable._src.core.layout import Within
from gradstable._src.core.shown import shown
from gradstable._src.core.units import Units


@shown
def standardize(
    *, units: Units = "flax", eps: ArrayLike = 1e-8, axis_name: AxisName = None
) -> optax.GradientTransformationExtraArgs:
    r"""Give each unit of the gradient mean zero and standard deviation one.

    Use it where gradients explode or vanish layer by layer: the result has no scale. Before
    Adam, which ignores the scale anyway, only the mean matters. Steps do not shrink near a
    minimum, so the learning rate must.

    .. math:: g' = \frac{g - m}{s + \epsilon}, \qquad
      m = \operatorname{mean}(g), \quad s^2 = \operatorname{mean}((g - m)^2)

    Every entry is within :math:`\sqrt{n - 1}` for a unit of ``n`` entries (Samuelson). A unit
    whose entries are equal, to a millionth of their size, becomes zero. A unit of one or two
    entries has no spread; it keeps its mean and is divided by its root mean square.

    Removing the mean is essential: ``normalize_gradient`` of pytorch-optimizer only divides, by
    the deviation of a whole leaf (with ``n - 1``), and turns a gradient of ones into one of 1e8.

    A unit with an entry that is not finite becomes zero as a whole. It reads the gradients
    three more times: 6.0 words per parameter before SGD, which moves 3 on its own.

    Args:
      units: the parts that are standardized separately, as for ``gs.guard``. Default ``"flax"``:
        output rows of weights and whole vectors, separately for each layer of a stacked leaf.
      eps: added to the deviation, in units of the gradient, >= 0. Default 1e-8
        (pytorch-optimizer's).
      axis_name: as for ``gs.guard``. Default ``None``.

    Returns:
      A ``GradientTransformationExtraArgs`` without state; updates keep structure and dtypes.

    Raises:
      TypeError: if ``units`` is of the wrong type.
      ValueError: if a kind of units is unknown or ``eps`` is out of range.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradstable as gs
      >>> tx = gs.centering.standardize()
      >>> g = jnp.array([[1.0, 1e30], [2.0, 2e30], [3.0, 3e30]])
      >>> tx.update(g, tx.init(g))[0].round(3).tolist()
      [[-1.225, -1.225], [0.0, 0.0], [1.225, 1.225]]

    Source:
      The standard score of statistics; dividing by the deviation alone as in pytorch-optimizer.
    """
    check_number("eps", eps, at_least=0.0)

    def of_leaf(g: jax.Array, within: Within, path: str) -> jax.Array:
        del path
        return scores(g, spread_of(g, within), eps)

    return by_unit("standardize", units, of_leaf, axis_name=axis_name)
