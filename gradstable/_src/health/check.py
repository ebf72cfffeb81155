"""Raise when the run cannot continue."""

import warnings
from typing import Any, NamedTuple, NoReturn

import jax
import numpy as np

from gradstable._src.core.checks import check_number
from gradstable._src.core.find import find_all, slim
from gradstable._src.core.ledger import Dropped, Ledger
from gradstable._src.health.carriers import find_carriers
from gradstable._src.health.explain import story
from gradstable._src.health.members import Member, named, shape_of
from gradstable._src.health.read import find_ledgers
from gradstable._src.health.stories import (
    Recurring,
    in_guards,
    recurs,
    share_recurring,
    tell_recurrence,
    usual_log,
)
from gradstable._src.recovery.turn import RollbackState

# Two updates restore exactly; a few more are needed if they have fewer bits than the parameters.
_MAX_ATTEMPTS = 12
_HELD = (
    "Parameters and optimizer state are those of the last good step. Inspect the data and the loss "
    "of this step, lower the learning rate, or restore a checkpoint."
)
_KEPT = (
    "gradstable.recovery.last_good(opt_state) returns the last good parameters. Inspect the data "
    "since then, lower the learning rate, or restore a checkpoint."
)
_RESTORE = (
    "Call gradstable.recovery.restored(opt_state, params) after optax.apply_updates: it restores "
    "exactly, even where parameters are NaN, and is required with restore_by='caller'."
)
_IN_VAIN = "it diverged {} times in a row, each time after a rollback"
_LOST = "{} updates have not restored the last good parameters"
_POISONED = "optax.MultiSteps has accumulated a NaN or an infinity, which it never clears"
_REJECTED = "the last {} steps were all rejected"
_LEFT_OUT = "the last {} micro-batches were all left out"
_EMPTY = "Parameters and optimizer state are those of the last good step."


class RecurringGradients(UserWarning):
    """A steady share of gradients is far above the usual norm: a task, or a fault in the data."""

    __module__ = "gradstable"


class TrainingDiverged(RuntimeError):
    """The run cannot continue; the message says when, why and where it broke."""

    __module__ = "gradstable"  # so that tracebacks show the public name


def check(opt_state: object, params: object | None = None, *, patience: int = 200) -> None:
    """Raise ``TrainingDiverged`` when the run cannot continue on its own.

    A guard never gives up: it holds the last good parameters for as long as it takes. With
    ``check``, the training loop learns that waiting is useless: ``patience`` steps in a row were
    rejected, or as many micro-batches left out by ``gs.accumulate``, or ``gs.rollback`` has rolled
    back as often as it is allowed to. Call it every few hundred steps; it fetches a few scalars.
    Parameters and state are intact when it raises, and after a rollback ``gs.recovery.last_good``
    returns the parameters that were kept. It also raises if ``optax.MultiSteps`` around a guard has
    accumulated a NaN, which no later gradient can remove.

    It warns with ``RecurringGradients`` where a run can continue, but 1 % of all recent gradients
    or more were far above the usual norm: a healthy minority of the data, or a recurring fault.

    Args:
      opt_state: as for ``gs.health``. Every guard in it is checked, and for a state of several
        runs every member. If one of them cannot continue it raises, and says which.
      params: as for ``gs.explain``.
      patience: rejected steps, or micro-batches that are left out, in a row that are still normal,
        >= 1. Default 200: the default rule accepts a change of level by a factor of 1000 sooner
        than that (``docs/figures``).

    Raises:
      TrainingDiverged: with the text of ``gs.explain``.
      ValueError: if there is no guard in the state, or ``patience`` is out of range.

    Example:
      >>> import jax.numpy as jnp
      >>> import optax
      >>> import gradstable as gs
      >>> tx = gs.guard(optax.sgd(0.1))
      >>> gs.check(tx.init(jnp.ones(2)))
    """
    check_number("patience", patience, at_least=1)
    returns = [slim(state) for _, state in find_all(opt_state, RollbackState)]
    ledgers = find_all(opt_state, Ledger) if returns else find_ledgers(opt_state)
    axes = len(shape_of(ledgers[0][1])) if ledgers else 0
    sums = [one.broken for one in find_carriers(opt_state, axes=axes, sums_only=True) if one.is_sum]
    recurring = in_guards(opt_state)
    dropped = [one.consecutive_dropped for _, one in find_all(opt_state, Dropped)]
    rejected = [ledger.consecutive_rejected for _, ledger in ledgers]
    returns, runs, dropped, sums, recurring = jax.device_get(
        (returns, rejected, dropped, sums, recurring)
    )
    for why in (
        *(_Why(state.exhausted, state.in_vain, _IN_VAIN, _KEPT) for state in returns),
        *(
            _Why(state.attempts > _MAX_ATTEMPTS, state.attempts, _LOST, _RESTORE)
            for state in returns
        ),
        *(_Why(np.any(broken, axis=0), 0, _POISONED, _EMPTY) for broken in sums),
        *(_Why(run >= patience, run, _REJECTED, _HELD) for run in runs),
        *(_Why(run >= patience, run, _LEFT_OUT, _HELD) for run in dropped),
    ):
        if np.any(why.ends):
            _give_up(why, opt_state, params)
    for state in recurring:
        if np.any(recurs(state)):
            _warn(state)


def _warn(recurring: Recurring) -> None:
    """Warn of the member with the largest share."""
    worst = np.unravel_index(np.argmax(share_recurring(recurring)), np.shape(usual_log(recurring)))
    numbers = jax.tree.map(lambda leaf: np.asarray(leaf)[worst], recurring)
    warnings.warn(" ".join(tell_recurrence(numbers)), RecurringGradients, stacklevel=3)


class _Why(NamedTuple):
    """Why a run cannot continue: for which members, with which number, and what to do."""

    ends: Any
    number: Any
    sentence: str
    remedy: str


def _give_up(why: _Why, opt_state: object, params: object | None) -> NoReturn:
    shape = np.shape(why.ends)
    members: list[Member] = [tuple(map(int, one)) for one in np.argwhere(why.ends)] if shape else []
    number = int(np.max(np.where(why.ends, why.number, 0)))
    whose = f"{named(members, shape)}: " if np.size(why.ends) > 1 else ""
    report = "\n".join(story(opt_state, params, only=members))
    msg = f"training cannot continue: {whose}{why.sentence.format(number)}.\n{report}\n{why.remedy}"
    raise TrainingDiverged(msg)
