"""The trust ratio of LARS and LAMB: steps in proportion to the size of their parameters."""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike

from gradstable._src.core.act import keep_finite, scale_updates
from gradstable._src.core.axis_name import AxisName
from gradstable._src.core.checks import check_number
from gradstable._src.core.shown import shown
from gradstable._src.core.stateless import stateless
from gradstable._src.core.tree_checks import check_params
from gradstable._src.core.units import Units, check_units
from gradstable._src.rate.sizes import sizes_of


@shown
def scale_by_trust_ratio(
    *,
    min_norm: ArrayLike = 0.0,
    trust_coefficient: ArrayLike = 1.0,
    eps: ArrayLike = 0.0,
    trust_clip: bool = False,
    units: Units = "leaf",
    axis_name: AxisName = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Give updates the norm of their parameters, each leaf separately.

    Use it like ``optax.scale_by_trust_ratio``, before the learning rate, for very large batches.
    The length of the step is the rate times the norm of the parameters, whatever the gradients,
    so the parameters cannot grow faster than :math:`(1 + \eta)^t`. The norms are computed in
    float32 and do not overflow. Those of optax, in the dtype of the leaf, are infinite for a
    float16 update of norm 300, and its result is zero.

    .. math:: u' = u \cdot \begin{cases} 1 & \|\theta\| = 0 \vee \|u\| = 0 \\
       c \max(\|\theta\|, m) / (\max(\|u\|, m) + \epsilon) & \text{else} \end{cases}

    and at most ``u`` itself with ``trust_clip``. A leaf (or unit) becomes zero if an entry is
    not finite, or if the norm itself exceeds float32.

    Known weakness: it makes noise as large as signal. An update of norm 1e-6, all that is left
    in a converged layer, is stretched to the norm of its parameters like any other (a factor of
    1e6 for parameters of norm 1); ``trust_clip`` prevents exactly that. And parameters of norm
    exactly zero get the raw update: zero is not treated as a small number.

    Args:
      min_norm: ``m``, the lower bound for either norm, >= 0. Default 0.
      trust_coefficient: ``c``, > 0. Default 1, as in LAMB; LARS has 0.001.
      eps: added to the norm of the update, >= 0. Default 0.
      trust_clip: whether the ratio is at most 1 (LAMBC). Default ``False``.
      units: the parts that each have their own ratio, as for ``gs.rate.cap_update_rms``.
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
      >>> tx = gs.rate.scale_by_trust_ratio()
      >>> params, u = jnp.array([3.0, 4.0]), jnp.array([1e30, 0.0])
      >>> tx.update(u, tx.init(params), params)[0].tolist()
      [5.0, 0.0]

    Source:
      You, Gitman, Ginsburg, 2017, arXiv:1708.03888 (LARS); You et al., "Large Batch
      Optimization for Deep Learning", 2019, arXiv:1904.00962 (LAMB); Fong et al., "Improving
      Layer-wise Adaptive Rate Methods using Trust Ratio Clipping", 2020, arXiv:2011.13584.
    """
    check_number("min_norm", min_norm, at_least=0.0)
    check_number("trust_coefficient", trust_coefficient, above=0.0)
    check_number("eps", eps, at_least=0.0)
    check_units(units)
    largest = 1.0 if trust_clip else float(jnp.finfo(jnp.float32).max)

    def apply(updates: Any, params: Any) -> Any:
        check_params(params, "scale_by_trust_ratio")
        sizes = sizes_of(updates, params, units, axis_name=axis_name)
        least = jnp.asarray(min_norm, jnp.float32)

        def ratio(norm: jax.Array, param_norm: jax.Array) -> jax.Array:
            u, p = jnp.maximum(norm, least), jnp.maximum(param_norm, least)
            raw = jnp.asarray(trust_coefficient, jnp.float32) * p
            raw = raw / (u + jnp.asarray(eps, jnp.float32))
            # Non-finite parameters have no size. (A non-finite update gives NaN or zero anyway.)
            idle = (p == 0.0) | (u == 0.0) | ~jnp.isfinite(p)
            return jnp.where(idle, jnp.ones_like(raw), jnp.minimum(raw, largest))

        scaled = scale_updates(updates, tuple(map(ratio, sizes.norms, sizes.param_norms)))
        # The ratio makes the largest parameters the fastest: none must overflow its dtype.
        return keep_finite(jnp.asarray(True), scaled, params)

    return stateless("scale_by_trust_ratio", apply, complex_too=True)
