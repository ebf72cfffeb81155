"""A fixed limit on the norm of every leaf, or of every unit, separately."""

from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from gradstable._src.core.checks import check_number
from gradstable._src.core.reasons import Reason
from gradstable._src.core.shown import shown
from gradstable._src.core.types import Measure, Verdict
from gradstable._src.core.unit_norms import UnitRequest
from gradstable._src.core.units import Units, check_units
from gradstable._src.rules.protocol import Rule


@shown
def block_norm(max_norm: ArrayLike, *, units: Units | None = None) -> Rule:
    r"""Scale every leaf down to a fixed norm, separately.

    Use it where one part of a model explodes and the others should keep their size: a global
    clip shrinks them all. The price is that the direction of the whole gradient changes. If
    layers are stacked in one leaf (``scan`` over layers), pass ``units="layer"``. Otherwise one
    layer that explodes by a factor of a million shrinks the others by the same factor.

    .. math:: g_i' = g_i \cdot \min(1, c / \|g_i\|)

    Args:
      max_norm: the limit ``c`` for one leaf or unit, in units of the gradient, > 0. No default:
        it depends on the model. Since a tree of ``L`` equal leaves has :math:`\sqrt L` times the
        norm of one, it should be smaller than a limit on the global norm.
      units: the parts of a leaf that are limited separately, as for ``gs.guard``. Default
        ``None``: whole leaves, whose norms are known anyway. Any other units cost one more read
        of the gradients (measured: one word per parameter).

    Returns:
      A ``Rule`` without state. It never rejects.

    Raises:
      TypeError: if ``units`` is of the wrong type.
      ValueError: if ``max_norm`` is not a positive number or a kind of units is unknown.

    Example:
      >>> import optax
      >>> import gradstable as gs
      >>> tx = gs.guard(optax.adamw(3e-4), gs.rules.block_norm(0.1), gs.rules.log_mad())

    Source:
      Common practice; heavyball has it as ``l2_clip_``.
    """
    check_number("max_norm", max_norm, above=0.0)
    if units is not None:
        check_units(units)

    def decide(measure: Measure, state: tuple[()], **_: Any) -> tuple[Verdict, tuple[()]]:
        limit = jnp.asarray(max_norm, jnp.float32)
        if units is None:
            return limited(down_to(limit, measure.leaf_norms), Reason.BLOCK_CLIPPED), state
        factors = tuple(down_to(limit, norms) for norms in measure.units[0].updates)
        return limited(factors, Reason.BLOCK_CLIPPED), state

    return Rule(init=lambda _params: (), decide=decide, needs=request(units))


def request(units: Units | None) -> tuple[UnitRequest, ...]:
    """Return the needs of a rule that judges whole leaves by default: nothing, or units."""
    return () if units is None else (UnitRequest(units=units),)


def down_to(limit: jax.Array, norms: jax.Array) -> jax.Array:
    """Return the factors that bring norms to their limits; 1 where they are below."""
    above = norms > limit
    return jnp.where(above, limit / jnp.where(above, norms, 1.0), 1.0)


def limited(factors: jax.Array | tuple[jax.Array, ...], reason: Reason) -> Verdict:
    """Return the verdict that scales by factors, with a reason if any of them is not 1."""
    verdict = Verdict.of(scale=factors)
    return verdict._replace(reason=jnp.where(verdict.clipped, reason, Reason.OK).astype(jnp.int32))
