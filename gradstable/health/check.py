"""Raise when the run cannot go on."""

from typing import NoReturn

import jax

from gradstable._core.checks import check_number
from gradstable._core.find import find_all, told
from gradstable._core.ledger import Ledger
from gradstable.health.explain import explain
from gradstable.health.read import find_ledgers
from gradstable.recovery.turn import RollbackState

# Two updates lead back exactly, a few more do where they have fewer bits than the parameters.
_MAX_ATTEMPTS = 12
_HELD = (
    "Parameters and optimizer state are those of the last good step. Look at the data and the loss "
    "of this step, lower the learning rate, or go back to a checkpoint."
)
_KEPT = (
    "gradstable.last_good(opt_state) has the last good parameters. Look at the data since then, "
    "lower the learning rate, or go back to a checkpoint."
)
_RESTORE = (
    "Call gradstable.restored(params, opt_state) behind optax.apply_updates: it goes back exactly, "
    "also where parameters are NaN, and where rollback was told that the caller restores."
)


class TrainingDiverged(RuntimeError):
    """The run cannot go on; the message says when, why and where it broke."""

    __module__ = "gradstable"  # in tracebacks, by the name that users know


def check(opt_state: object, params: object | None = None, *, patience: int = 200) -> None:
    """Raise ``TrainingDiverged`` when the run cannot go on by itself.

    A guard never gives up: it holds the last good parameters for as long as it takes. This
    is how the loop around it learns that it waits in vain: so many steps in a row were rejected
    that no more come, or ``gs.rollback`` has gone back as often as it may. Call it every few
    hundred steps; it fetches a few scalars. Parameters and state are intact when it raises, and
    behind a rollback ``gs.last_good`` has the parameters that it kept.

    Args:
      opt_state: as for ``gs.health``; every guard in it is checked.
      params: as for ``gs.explain``.
      patience: rejected steps in a row that are still normal, >= 1. Default 200: the default
        rule lets go of a change of level by a factor of 1000 sooner (``docs/figures``).

    Raises:
      TrainingDiverged: with what ``gs.explain`` says.
      ValueError: if there is no guard in the state, or ``patience`` is out of range.

    Example:
      >>> import jax.numpy as jnp
      >>> import optax
      >>> import gradstable as gs
      >>> tx = gs.guard(optax.sgd(0.1))
      >>> gs.check(tx.init(jnp.ones(2)))
    """
    check_number("patience", patience, at_least=1)
    returns = [told(state) for _, state in find_all(opt_state, RollbackState)]
    for state in jax.device_get(returns):
        if state.exhausted:
            _give_up(f"it left its basin {state.in_vain} times in a row", _KEPT, opt_state, params)
        if state.attempts > _MAX_ATTEMPTS:
            why = f"{state.attempts} updates have not led it back to the last good parameters"
            _give_up(why, _RESTORE, opt_state, params)
    ledgers = find_all(opt_state, Ledger) if returns else find_ledgers(opt_state)
    for _, ledger in jax.device_get(ledgers):
        run = int(ledger.consecutive_rejected)
        if run >= patience:
            _give_up(f"the last {run} steps were all rejected", _HELD, opt_state, params)


def _give_up(why: str, remedy: str, opt_state: object, params: object | None) -> NoReturn:
    msg = f"training cannot go on: {why}.\n{explain(opt_state, params)}\n{remedy}"
    raise TrainingDiverged(msg)
