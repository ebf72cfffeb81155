"""A fixed limit on the root mean square of every leaf, or of every unit, separately."""

import math
from typing import Any

import jax.numpy as jnp
from jax.typing import ArrayLike

from gradstable._src.core.checks import check_number
from gradstable._src.core.reasons import Reason
from gradstable._src.core.shown import shown
from gradstable._src.core.types import Measure, Verdict
from gradstable._src.core.units import Units, check_units
from gradstable._src.rules.block_norm import down_to, limited, request
from gradstable._src.rules.protocol import Rule


@shown
def block_rms(max_rms: ArrayLike, *, units: Units | None = None) -> Rule:
    r"""Scale every leaf down to a fixed root mean square, separately.

    The update clip of Adafactor. It is most meaningful on updates that were already divided by
    the root of a second moment, whose entries are near 1: put
    ``gs.clipping.clip_by(gs.rules.block_rms(1.0))`` after such a ``scale_by_*`` and before the
    learning rate. On raw gradients it is ``block_norm`` with a limit that grows with the square
    root of the size of a leaf.

    Its weakness is that an average over a leaf dilutes rare entries: a single entry in a matrix
    with a million entries passes at up to 1000 times the limit.

    .. math:: g_i' = g_i / \max(1, \mathrm{RMS}(g_i) / d), \qquad
              \mathrm{RMS}(g_i) = \|g_i\| / \sqrt{n_i}

    Args:
      max_rms: the limit ``d``, in units of the gradient, > 0. 1.0 in Adafactor.
      units: the parts of a leaf that are limited separately, as for ``gs.guard``: ``"layer"`` if
        layers are stacked in one leaf. Default ``None``: whole leaves, whose norms are known
        anyway. Any other units cost one more read of the gradients (measured: one word per
        parameter).

    Returns:
      A ``Rule`` without state. It never rejects.

    Raises:
      TypeError: if ``units`` is of the wrong type.
      ValueError: if ``max_rms`` is not a positive number or a kind of units is unknown.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradstable as gs
      >>> rule = gs.rules.block_rms(1.0)
      >>> verdict, _ = rule.decide(gs.Measure.of([8.0, 1.0], leaf_sizes=[16, 4]), ())
      >>> verdict.scale.tolist()
      [0.5, 1.0]

    Source:
      Shazeer and Stern, "Adafactor: Adaptive Learning Rates with Sublinear Memory Cost", 2018,
      arXiv:1804.04235, section 6.
    """
    check_number("max_rms", max_rms, above=0.0)
    if units is not None:
        check_units(units)

    def decide(measure: Measure, state: tuple[()], **_: Any) -> tuple[Verdict, tuple[()]]:
        limit = jnp.asarray(max_rms, jnp.float32)
        if units is None:
            limits = limit * jnp.sqrt(measure.leaf_sizes)
            return limited(down_to(limits, measure.leaf_norms), Reason.BLOCK_CLIPPED), state
        seen = measure.units[0]
        factors = tuple(
            down_to(limit * math.sqrt(size), norms)
            for norms, size in zip(seen.updates, seen.sizes, strict=True)
        )
        return limited(factors, Reason.BLOCK_CLIPPED), state

    return Rule(init=lambda _params: (), decide=decide, needs=request(units))
