"""A fixed limit on the global norm: the plain, stateless clip of Pascanu et al."""

from typing import Any

import jax.numpy as jnp
from jax.typing import ArrayLike

from gradstable._src.core.checks import check_number
from gradstable._src.core.reasons import Reason
from gradstable._src.core.shown import shown
from gradstable._src.core.types import Measure, Verdict
from gradstable._src.rules.protocol import Rule


@shown
def global_norm(max_norm: ArrayLike) -> Rule:
    r"""Scale a gradient down to a fixed global norm.

    Use it when you know the limit (1.0 for most transformers): it has no memory that a bad
    batch could corrupt. Its weakness is that the limit is absolute: a spike is clipped to
    ``max_norm`` but still points the wrong way, and a healthy gradient above it is clipped too.

    .. math:: g' = g \cdot \min(1, c / \|g\|)

    Args:
      max_norm: the limit ``c``, in units of the gradient, > 0. No default: it depends on the
        model. 1.0 in GPT-3, Llama 2, OLMo 2 and DeepSeek-V3.

    Returns:
      A ``Rule`` without state. It never rejects.

    Raises:
      ValueError: if ``max_norm`` is not a positive number.

    Example:
      >>> import optax
      >>> import gradstable as gs
      >>> tx = gs.guard(optax.adamw(3e-4), gs.rules.global_norm(1.0), gs.rules.log_mad())

    Source:
      Pascanu, Mikolov, Bengio, "On the difficulty of training recurrent neural networks",
      2013, arXiv:1211.5063.
    """
    check_number("max_norm", max_norm, above=0.0)

    def decide(measure: Measure, state: tuple[()], **_: Any) -> tuple[Verdict, tuple[()]]:
        limit = jnp.asarray(max_norm, jnp.float32)
        above = measure.norm > limit
        verdict = Verdict.of(
            scale=jnp.where(above, limit / measure.norm, 1.0),
            reason=jnp.where(above, Reason.NORM_CLIPPED, Reason.OK),
            threshold=limit,
        )
        return verdict, state

    return Rule(init=lambda _params: (), decide=decide)
