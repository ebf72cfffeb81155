"""AutoClip: clip to a percentile of past norms."""

from typing import Any

import jax.numpy as jnp
from jax.typing import ArrayLike

from gradstable._src.core.checks import check_number, check_size
from gradstable._src.core.reasons import Reason
from gradstable._src.core.shown import shown
from gradstable._src.core.types import Measure, Verdict
from gradstable._src.rules.protocol import Rule
from gradstable._src.rules.ring import Ring, new_ring, percentile_of, push


@shown
def percentile(percentile: ArrayLike = 10.0, *, window: int = 1000) -> Rule:
    r"""Scale a gradient down to a percentile of the norms of recent steps.

    Use a high percentile (90) as a clip that finds its own limit, or the published 10 as a
    normalizer: then nine out of ten steps are scaled to about the same norm, which makes the step
    size independent of the loss. It has no limit in units of the gradient.

    The norm enters the window before the percentile is taken, and before clipping:

    .. math:: H \leftarrow H \cup \{\|g\|\}, \qquad
              g' = g \cdot \min(1, P_p(H) / \|g\|)

    with :math:`P_p` the percentile with linear interpolation, as in ``numpy.percentile``. A zero
    norm does not enter, since a limit of zero would stop all learning. The small number that
    the reference code adds to the norm is left out, as in the paper.

    Known weakness: the window follows a level shift only once it holds enough of the new
    level, and until then every gradient is scaled to the old one: 900 steps for p = 10 and
    100 steps for p = 90, with the default window. It never rejects: a spike is scaled down, but
    keeps its direction. And where more than 1 - p of the norms are spikes, they set the limit:
    with 20 % of them at 50 times the rest, p = 90 lets them pass.

    Args:
      percentile: ``p``, in percent of the history, in [0, 100]. Default 10, the best one in
        the paper; it clips 90 % of all steps.
      window: how many norms are remembered, >= 1; each costs 4 bytes, and they are sorted in
        every step. Default 1000, as in the authors' package ``autoclip``. The paper keeps the
        whole history, which is impossible in a fixed structure, and its TensorFlow code 10000.

    Returns:
      A ``Rule`` whose state is a ``Ring``. It never rejects.

    Raises:
      ValueError: if an argument is out of range.

    Example:
      >>> import optax
      >>> import gradstable as gs
      >>> tx = gs.guard(optax.adamw(3e-4), gs.rules.percentile(90.0))

    Source:
      Seetharaman, Wichern, Pardo, Le Roux, "AutoClip: Adaptive Gradient Clipping for Source
      Separation Networks", 2020, arXiv:2007.14469.
    """
    check_number("percentile", percentile, at_least=0.0, at_most=100.0)
    check_size("window", window, at_least=1)

    def decide(measure: Measure, state: Ring, **_: Any) -> tuple[Verdict, Ring]:
        norm = measure.norm
        state = push(state, norm, when=norm > 0)
        limit = percentile_of(state, percentile)
        above = norm > limit
        verdict = Verdict.of(
            scale=jnp.where(above, limit / norm, 1.0),
            reason=jnp.where(above, Reason.QUANTILE_CLIPPED, Reason.OK),
            threshold=limit,
        )
        return verdict, state

    return Rule(init=lambda _params: new_ring(window), decide=decide)
