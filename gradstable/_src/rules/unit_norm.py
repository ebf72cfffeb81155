"""Adaptive gradient clipping: a limit on the gradient of a unit relative to its weights."""

from typing import Any

import jax.numpy as jnp
from jax.typing import ArrayLike

from gradstable._src.core.checks import check_number
from gradstable._src.core.reasons import Reason
from gradstable._src.core.shown import shown
from gradstable._src.core.types import Measure, Verdict
from gradstable._src.core.unit_norms import UnitRequest
from gradstable._src.core.units import Units, check_units
from gradstable._src.rules.block_norm import down_to, limited
from gradstable._src.rules.protocol import Rule


@shown
def unit_norm(
    max_ratio: ArrayLike = 0.01, *, eps: ArrayLike = 1e-3, units: Units | None = None
) -> Rule:
    r"""Limit the gradient of every unit to a fraction of the norm of its weights (AGC).

    Use it where no single limit fits all layers, above all in networks without normalization,
    for which it was made. It needs ``params``. Every output row of a matrix is limited separately,
    so a row that explodes neither passes nor shrinks its neighbors.

    .. math:: g_i' = g_i \cdot \min\left(1, \frac{\lambda \max(\|W_i\|, \epsilon)}
                                              {\|g_i\|}\right)

    A whole vector is one unit, as published. In a ``Dense`` kernel ``(in, out)`` and a
    ``Conv`` kernel ``(height, width, in, out)`` a unit is all weights of one output, and the rule
    agrees with ``optax.adaptive_grad_clip``. It differs where optax mixes units: a stack of
    layers ``(layers, in, out)`` is limited layer by layer (optax sums over the layers), an
    embedding token by token, a query kernel ``(in, heads, head_dim)`` as in optax, and an output
    projection ``(heads, head_dim, out)`` by its outputs.

    Known weaknesses. A unit that starts at zero has the limit :math:`\lambda \epsilon`, 1e-5 at
    the defaults, until it has grown: with SGD at a rate of 0.1, a bias needs 1000 steps to reach
    a norm of 1e-3. A limit that follows the weights also follows them down: a ViT-B on ImageNet
    with AdamW was reported to reach 38.5 % with it and 79.3 % without, and not to learn at all
    with an L2 penalty (Huang et al., 2025, arXiv:2502.17055). The authors do not clip the final
    linear layer: exclude it with ``optax.masked`` around the transform.

    Args:
      max_ratio: the ratio :math:`\lambda`, dimensionless, > 0. Default 0.01, as published for
        batches of 4096; smaller batches tolerate up to 0.16.
      eps: the smallest norm of weights, :math:`\epsilon`, in units of the parameters, > 0. Default
        1e-3, as published.
      units: as for ``gs.guard``. Default ``None``: those of the guard, else ``"flax"``, which
        reads the shape of Flax layers.

    Returns:
      A ``Rule`` without state, which never rejects. It reads gradients and parameters once more
      (measured: two words per parameter).

    Raises:
      TypeError: if ``units`` is of the wrong type.
      ValueError: if a number is not positive or a kind of units is unknown; in ``update``, if
        ``params`` are missing.

    Example:
      >>> import optax
      >>> import gradstable as gs
      >>> tx = gs.guard(optax.sgd(0.1, momentum=0.9), gs.rules.unit_norm(0.02))

    Source:
      Brock, De, Smith, Simonyan, "High-Performance Large-Scale Image Recognition Without
      Normalization", 2021, arXiv:2102.06171.
    """
    check_number("max_ratio", max_ratio, above=0.0)
    check_number("eps", eps, above=0.0)
    if units is not None:
        check_units(units)

    def decide(measure: Measure, state: tuple[()], **_: Any) -> tuple[Verdict, tuple[()]]:
        share, least = jnp.asarray(max_ratio, jnp.float32), jnp.asarray(eps, jnp.float32)
        seen = measure.units[0]
        assert seen.params is not None  # by the request below
        factors = tuple(
            down_to(share * jnp.maximum(of_params, least), of_updates)
            for of_updates, of_params in zip(seen.updates, seen.params, strict=True)
        )
        return limited(factors, Reason.UNIT_CLIPPED), state

    needs = (UnitRequest(units=units, params=True, default="flax"),)
    return Rule(init=lambda _params: (), decide=decide, needs=needs)
