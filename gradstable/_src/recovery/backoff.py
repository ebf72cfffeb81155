"""Smaller steps for a while after trouble: rejections and rollbacks."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike

from gradstable._src.core.act import scale_updates
from gradstable._src.core.checks import check_number
from gradstable._src.core.find import find_all
from gradstable._src.core.ledger import Ledger, rejections
from gradstable._src.core.names import answers_as_inner
from gradstable._src.core.numerics import increment
from gradstable._src.core.order import inside
from gradstable._src.core.scale import wrapping
from gradstable._src.core.select import own_arrays
from gradstable._src.core.shown import shown
from gradstable._src.core.tree_checks import check_state
from gradstable._src.core.wrapped import explaining
from gradstable._src.rate.backoff_on_spike import growth
from gradstable._src.recovery.counts import returns
from gradstable._src.recovery.turn import RollbackState


@answers_as_inner
class BackoffState(NamedTuple):
    """State of ``backoff``."""

    calls: jax.Array  # shape=(), dtype=jnp.int32
    step_factor: jax.Array  # shape=(), dtype=jnp.float32, the factor of the last step
    spikes: jax.Array  # shape=(), dtype=jnp.int32, runs of rejected steps that lowered it
    returns: jax.Array  # shape=(), dtype=jnp.int32, rollbacks that lowered it
    wrapped_state: Any


@shown
def backoff(
    inner: optax.GradientTransformation,
    *,
    factor: ArrayLike = 0.707,
    after: ArrayLike = 5,
    rollback_factor: ArrayLike = 0.1,
    recovery: ArrayLike = 50.0,
    min_scale: ArrayLike = 0.01,
) -> optax.GradientTransformationExtraArgs:
    r"""Make smaller steps after trouble, and let them grow back smoothly.

    Use it around a guard, or around ``gs.rollback``, after which the run would otherwise go over
    the same edge at the same speed: ``gs.backoff(gs.rollback(gs.guard(optax.adamw(3e-4))))``.
    Updates of ``inner`` are multiplied by a factor :math:`s`, which begins at 1:

    .. math:: s \leftarrow \begin{cases}
                \max(s_{min}, f_r\, s) & \text{the run was rolled back} \\
                \max(s_{min}, f s) & \text{the } k\text{th rejected step in a row} \\
                s & \text{other rejected steps, and those of the rollback itself} \\
                \min(1, s f^{-1/R}) & \text{else} \end{cases}

    The recovery acts as a warm-up after a rollback: from 0.1 to 1 in 332 steps with the defaults.
    It never gets stuck: after :math:`R \log s_{min} / \log f` steps without trouble (665) the
    factor is 1, whatever it was before. A run of rejected steps counts once, since the parameters
    do not move meanwhile. A run shorter than ``after`` does not count: then the batches are bad,
    not the rate. Updates that roll back to a copy are left unchanged, or they would miss it.

    A guard around it would hold its factor in the very steps that should lower it, and a rollback
    would restore the old factor: both are refused. For a chain without a guard use
    ``gs.rate.backoff_on_spike``, which detects spikes on its own.

    Args:
      inner: a transform with a guard (or another judging transform) or a rollback in it.
      factor: ``f``, for rejections in a row, in (0, 1). Default 0.707, as in AdaLR-Lion.
      after: ``k``, how many rejections in a row it takes, >= 1. Default 5.
      rollback_factor: :math:`f_r`, for a rollback, in (0, 1]. Default 0.1.
      recovery: ``R``, steps that undo one application of ``factor``, > 0. Default 50.
      min_scale: :math:`s_{min}`, the smallest factor, in (0, 1]. Default 0.01.

    Returns:
      A ``GradientTransformationExtraArgs`` with a ``BackoffState``; updates have the structure and
      the dtypes that ``inner`` gives them. It costs no extra pass over the parameters.

    Raises:
      TypeError: if ``inner`` is not a transform.
      ValueError: if a number is out of range, if ``inner`` contains ``kahan``, or at ``init`` if
        nothing in it judges.

    Example:
      >>> import jax.numpy as jnp
      >>> import optax
      >>> import gradstable as gs
      >>> tx = gs.backoff(gs.guard(optax.sgd(1.0)), after=1)
      >>> state = tx.init(jnp.ones(()))
      >>> for gradient in (1.0, jnp.nan, 1.0):
      ...     updates, state = tx.update(jnp.asarray(gradient), state)
      >>> round(float(updates), 4)
      -0.7119

    Source:
      Our own: the outlier timeout of MosaicML's AdaLR-Lion (llm-foundry, 2023), made smooth; OPT
      (2022, arXiv:2205.01068) lowers the rate when it returns to a checkpoint.
    """
    inner = inside("backoff", inner)
    check_number("factor", factor, above=0.0, below=1.0)
    check_number("after", after, at_least=1)
    check_number("rollback_factor", rollback_factor, above=0.0, at_most=1.0)
    check_number("recovery", recovery, above=0.0)
    check_number("min_scale", min_scale, above=0.0, at_most=1.0)

    def init_fn(params: optax.Params) -> BackoffState:
        inner_state = own_arrays(inner.init(params))
        _seen(inner_state)
        return BackoffState(
            calls=jnp.zeros((), jnp.int32),
            step_factor=jnp.ones((), jnp.float32),
            spikes=jnp.zeros((), jnp.int32),
            returns=jnp.zeros((), jnp.int32),
            wrapped_state=inner_state,
        )

    def update_fn(
        updates: optax.Updates,
        state: optax.OptState,
        params: optax.Params | None = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, BackoffState]:
        old = check_state(state, BackoffState, "backoff")
        with explaining(updates, params):
            stepped, inner_state = inner.update(updates, old.wrapped_state, params, **extra_args)
        before, seen = _seen(old.wrapped_state), _seen(inner_state)
        returned = seen.returns != before.returns
        rejected = (seen.rejected != before.rejected) & ~returned
        falls = rejected & (seen.in_a_row == after)
        idle = rejected | seen.idle
        fall = jnp.where(returned, rollback_factor, jnp.where(falls, factor, 1.0))
        # It was not the rate that was to blame.
        fall = jnp.where(seen.undone != before.undone, 1.0 / rollback_factor, fall)
        lower = jnp.clip(old.step_factor * fall, min_scale, 1.0)
        higher = jnp.minimum(old.step_factor * growth(factor, recovery), 1.0)
        scale = jnp.where(idle | returned, lower, higher).astype(jnp.float32)
        new = BackoffState(
            calls=increment(old.calls),
            step_factor=scale,
            spikes=jnp.where(falls, increment(old.spikes), old.spikes),
            returns=jnp.where(returned, increment(old.returns), old.returns),
            wrapped_state=inner_state,
        )
        return scale_updates(stepped, jnp.where(seen.going, 1.0, scale)), new

    return wrapping(inner, init_fn, update_fn)


class _Seen(NamedTuple):
    rejected: jax.Array  # int32, in all
    in_a_row: jax.Array  # int32, rejected steps up to now
    returns: jax.Array  # int32, in all
    undone: jax.Array  # int32, in all
    going: jax.Array  # bool, whether this step's updates are part of a rollback
    idle: jax.Array  # bool, whether parameters go back or stand still


def _seen(inner_state: object) -> _Seen:
    ledgers = [ledger for _, ledger in find_all(inner_state, Ledger)]
    rollbacks = [state for _, state in find_all(inner_state, RollbackState)]
    if not ledgers and not rollbacks:
        msg = (
            "backoff needs a guard or a rollback inside, to detect trouble: "
            "gradstable.backoff(gradstable.guard(inner)). Without one, chain "
            "gradstable.rate.backoff_on_spike() after the optimizer"
        )
        raise ValueError(msg)
    zero = jnp.zeros((), jnp.int32)

    def any_of(flags: list[jax.Array]) -> jax.Array:
        return jnp.any(jnp.stack([jnp.asarray(False), *flags]))

    return _Seen(
        rejected=rejections(inner_state),
        in_a_row=functools.reduce(
            jnp.maximum, (ledger.consecutive_rejected for ledger in ledgers), zero
        ),
        returns=returns(inner_state),
        undone=sum((state.undone for state in rollbacks), zero),
        going=any_of([state.attempts > 0 for state in rollbacks]),
        idle=any_of([(state.attempts > 0) | (state.trial.tries_left > 0) for state in rollbacks]),
    )
