"""Limit how large an update can be, after the preconditioner."""

from typing import Any

import jax.numpy as jnp
import optax
from jax.typing import ArrayLike

from gradstable._src.core.act import scale_updates
from gradstable._src.core.axis_name import AxisName
from gradstable._src.core.checks import check_number
from gradstable._src.core.shown import shown
from gradstable._src.core.stateless import stateless
from gradstable._src.core.units import Units, check_units
from gradstable._src.rate.sizes import factor_to, sizes_of


@shown
def cap_update_rms(
    max_rms: ArrayLike = 1.0, *, units: Units = "leaf", axis_name: AxisName = None
) -> optax.GradientTransformationExtraArgs:
    r"""Scale updates down to a root mean square, each leaf separately.

    Use it after a preconditioner such as ``gs.moments.scale_by_adam``, whose healthy updates have
    a root mean square (RMS) below 1. It stops what no clip of the gradient can see: a gradient that
    is normal in itself, but large compared with a second moment that a quiet period left stale.

    .. math:: u' = u \cdot \min\left(1, \frac{d}{RMS(u)}\right), \qquad
              RMS(u) = \sqrt{\textstyle\frac{1}{n} \sum_{i=1}^n u_i^2}

    An update within the limit passes bit for bit. No square overflows on the way. A leaf (or
    unit) becomes zero if an entry is not finite, or if the norm itself exceeds float32.

    Known weakness: it bounds the mean, so if a single one of the ``n`` entries of a leaf explodes,
    that one still moves by ``max_rms * sqrt(n)``. And a spike shrinks the step of the whole leaf,
    which is why large stacked leaves should use ``units="layer"``.

    Args:
      max_rms: the limit ``d``, dimensionless, > 0; ``inf`` caps nothing. Default 1, as in
        Adafactor, where the idea comes from.
      units: the parts that are capped separately: ``"leaf"``, ``"layer"`` for leaves that
        stack layers along their first axis, or anything else that ``gs.guard`` takes.
      axis_name: mesh axes over which leaves are sharded, as for ``gs.guard``.

    Returns:
      A ``GradientTransformationExtraArgs`` without state; updates keep structure and dtypes.

    Raises:
      TypeError: if ``units`` is of the wrong type.
      ValueError: if ``max_rms`` is not a positive number, or units are unknown.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradstable as gs
      >>> tx = gs.rate.cap_update_rms(1.0)
      >>> u = jnp.array([1e30, -1e30])
      >>> tx.update(u, tx.init(u))[0].tolist()
      [1.0, -1.0]

    Source:
      Shazeer, Stern, "Adafactor", 2018, arXiv:1804.04235, section 6; after Adam in Wortsman et
      al., 2023, arXiv:2304.13013.
    """
    check_number("max_rms", max_rms, above=0.0, finite=False)
    check_units(units)

    def apply(updates: Any, params: Any) -> Any:
        del params
        sizes = sizes_of(updates, None, units, axis_name=axis_name)
        limit = jnp.asarray(max_rms, jnp.float32)
        pairs = zip(sizes.norms, sizes.counts, strict=True)
        factors = tuple(factor_to(limit * jnp.sqrt(count), norm) for norm, count in pairs)
        return scale_updates(updates, factors)

    return stateless("cap_update_rms", apply, complex_too=True)
