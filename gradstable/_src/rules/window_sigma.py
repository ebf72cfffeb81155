"""Reject norms or losses far above the mean of a window, as OLMo and MaxText do."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from gradstable._src.core.checks import check_number, check_size
from gradstable._src.core.numerics import largest_norm_in, unlimited
from gradstable._src.core.reasons import Reason
from gradstable._src.core.shown import shown
from gradstable._src.core.tree_checks import check_value
from gradstable._src.core.types import Measure, Verdict
from gradstable._src.rules.protocol import Rule
from gradstable._src.rules.ring import Ring, mean_and_std, new_ring, number_held, push


class WindowSigmaState(NamedTuple):
    """State of ``window_sigma``: one ``Ring`` for norms and one for losses."""

    last_norms: Ring
    last_losses: Ring | None  # None unless losses are judged


@shown
def window_sigma(
    *, window: int = 128, reject_at: ArrayLike = 6.0, judge_loss: bool = False
) -> Rule:
    r"""Reject a norm, or a loss, that is many standard deviations above recent ones.

    Use it as OLMo and MaxText do, for rare single spikes in a long run. For bursts use
    ``log_mad``, and ``loss_spike`` for the loss.

    With mean and unbiased standard deviation of the last ``W`` norms before this one, a step is

    .. math:: \text{accepted} \iff \|g\| - \mu_W \le k\, \sigma_W

    and, if losses are judged, the same holds for them. Nothing is judged until there are
    :math:`\max(2, W / 2)` norms, including the newest. Rejected norms enter the window as well,
    so that they can become the new normal: no level is rejected forever. In OLMo and MaxText one
    NaN in the window rejects, or lets through, the next 128 steps. Here, non-finite values are
    rejected and never enter.

    Known weakness: a spike stays in the window and hides the next. After one of 1000 times
    the norm, everything below 538 times the norm passes for 128 steps; of ten in a row the
    fifth passes untouched; and with 20 % of all norms at 50 times the rest, more than 99 % of
    these pass.

    Args:
      window: ``W``, how many norms are remembered, >= 2. Default 128, as in OLMo.
      reject_at: ``k``, standard deviations above the mean at which rejection begins, > 0. Default
        6, as in OLMo.
      judge_loss: whether to judge the loss as well, as OLMo does: ``update`` then needs
        ``value=loss``. Default ``False``.

    Returns:
      A ``Rule`` whose state is a ``WindowSigmaState``. Its scale is always 1.

    Raises:
      ValueError: if an argument is out of range, and in ``update`` if the loss is missing.

    Example:
      >>> import optax
      >>> import gradstable as gs
      >>> tx = gs.guard(optax.adamw(3e-4), gs.rules.window_sigma())

    Source:
      OLMo-core, ``SkipStepOptimizer``, Allen Institute for AI, 2024; MaxText,
      ``skip_step_on_spikes``.
    """
    check_size("window", window, at_least=2)
    check_number("reject_at", reject_at, above=0.0)
    # OLMo counts the newest, but it takes at least two older ones to have a spread.
    needed = max(2, window // 2 - 1)

    def limit(ring: Ring) -> jax.Array:
        mean, std = mean_and_std(ring, ddof=1)
        return jnp.where(
            number_held(ring) >= needed,
            mean + jnp.multiply(jnp.asarray(reject_at, jnp.float32), std),
            unlimited(),
        )

    def init(params: Any) -> WindowSigmaState:
        del params
        return WindowSigmaState(new_ring(window), new_ring(window) if judge_loss else None)

    def decide(
        measure: Measure, state: WindowSigmaState, *, value: ArrayLike | None = None, **_: Any
    ) -> tuple[Verdict, WindowSigmaState]:
        threshold = limit(state.last_norms)
        calm = measure.norm <= threshold
        usual, losses = jnp.asarray(True), None
        if state.last_losses is not None:
            dtype = state.last_losses.last_numbers.dtype
            loss = check_value(value, "window_sigma(judge_loss=True)", dtype)
            finite = jnp.abs(loss) <= largest_norm_in(dtype)
            usual = finite & (loss <= limit(state.last_losses))
            losses = push(state.last_losses, loss, when=finite)
        of_both = jnp.where(calm, Reason.LOSS_REJECTED, Reason.HISTORY_REJECTED)
        verdict = Verdict.of(
            accept=calm & usual,
            reason=jnp.where(calm & usual, Reason.OK, of_both),
            threshold=threshold,
        )
        return verdict, WindowSigmaState(push(state.last_norms, measure.norm), losses)

    return Rule(init=init, decide=decide)
