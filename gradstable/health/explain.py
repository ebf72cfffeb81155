"""Say what happened, in sentences."""

from collections.abc import Sequence

import jax
import numpy as np

from gradstable._core.find import find_all, told
from gradstable._core.ledger import Ledger
from gradstable._core.paths import leaf_paths
from gradstable._core.reasons import Reason, sentence
from gradstable._core.types import Health
from gradstable.health.read import find_ledgers
from gradstable.health.stories import TELLERS, leaf_name, steps


def explain(opt_state: object, params: object | None = None) -> str:
    """Tell in sentences what the guard did, from the numbers in an optimizer state.

    Args:
      opt_state: as for ``gs.health``; several guards are told of one after the other, and after
        them accumulation, loss scale, recovery, and the early warnings of ``gs.record``.
      params: the parameters (or gradients), so that leaves are named by their path. Without
        them a leaf is named by its position in tree order.

    Returns:
      A few sentences, one a line.

    Raises:
      ValueError: if there is nothing in the state that could tell.

    Example:
      >>> import jax.numpy as jnp
      >>> import optax
      >>> import gradstable as gs
      >>> params = {"bias": jnp.zeros(2), "kernel": jnp.ones((3, 2))}
      >>> tx = gs.guard(optax.sgd(0.1))
      >>> bad = {"bias": jnp.zeros(2), "kernel": jnp.full((3, 2), jnp.inf)}
      >>> _, state = tx.update(bad, tx.init(params), params)
      >>> print(gs.explain(state, params))
      1 step: 0 accepted (0 of them clipped), 1 rejected.
      1 rejected because the gradient had NaN or infinite entries.
      The last rejection was at step 1: the gradient had NaN or infinite entries, first in
      ['kernel'].
    """
    stories = [(tell, one) for kind, tell in TELLERS for _, one in find_all(opt_state, kind)]
    fetched = jax.device_get([told(one) for _, one in stories])
    ledgers = find_all(opt_state, Ledger) if stories else find_ledgers(opt_state)
    ledgers = [(place.removesuffix(".ledger"), one) for place, one in jax.device_get(ledgers)]
    paths = None if params is None else leaf_paths(params)
    story: list[str] = []
    for place, ledger in ledgers:
        title = [f"opt_state{place}:"] if len(ledgers) > 1 else []
        story += [*title, *_tell(ledger, paths)]
    for (tell, _), one in zip(stories, fetched, strict=True):
        story += tell(one, paths)
    return "\n".join(story) or "No guard, and no early warning."


def _tell(ledger: Ledger, paths: Sequence[str] | None) -> list[str]:
    health = ledger.health
    story = [
        f"{steps(int(health.count))}: {health.accepted} accepted "
        f"({health.clipped} of them clipped), {health.rejected} rejected{_tell_idle(health)}."
    ]
    for deed, totals in (("rejected", ledger.rejected_by), ("clipped", ledger.clipped_by)):
        story += [
            f"{totals[code]} {deed} because {sentence(code)}." for code in np.flatnonzero(totals)
        ]
    if health.last_rejected >= 0:
        story.append(_tell_last_rejection(ledger, paths))
    if health.consecutive_rejected > 1:
        story.append(f"The last {health.consecutive_rejected} steps were all rejected.")
    return story


def _tell_idle(health: Health) -> str:
    """Tell of calls that reached no verdict: they led the run back to a copy, or stood still."""
    idle = int(health.count) - int(health.accepted) - int(health.rejected)
    return f", {idle} held by rollback" if idle > 0 else ""


def _tell_last_rejection(ledger: Ledger, paths: Sequence[str] | None) -> str:
    last = ledger.last_rejection
    leaf = leaf_name(int(last.worst_leaf), paths)
    told = f"The last rejection was at step {ledger.last_rejected}: {sentence(last.reason)}"
    if last.reason == Reason.NONFINITE:
        return f"{told}, first in {leaf}."
    limit = f", threshold {last.norm_limit:.3g}" if np.isfinite(last.norm_limit) else ""
    return f"{told} (norm {last.grad_norm:.3g}{limit}), largest in {leaf}."
