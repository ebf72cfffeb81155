"""Outdated moments: damp them, or reset them, after steps have been rejected."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike

from gradstable._src.core.checks import check_number, check_size
from gradstable._src.core.equations import as_at_init
from gradstable._src.core.find import Snapshots, find_all
from gradstable._src.core.ledger import Ledger, rejections
from gradstable._src.core.names import answers_as_inner
from gradstable._src.core.numerics import increment, is_inexact, wide
from gradstable._src.core.order import inside
from gradstable._src.core.scale import wrapping
from gradstable._src.core.select import own_arrays, run_if, take_types
from gradstable._src.core.shown import shown
from gradstable._src.core.tree_checks import check_params, check_state
from gradstable._src.core.wrapped import explaining
from gradstable._src.recovery.counts import returns

# Fields of optax's states and of ours: averages of gradients, and other statistics of them. A state
# with a field of either kind is an estimator, and is reset as a whole.
_FIRST = frozenset({"mu", "mu_slow", "mu_diff", "m", "trace", "ema", "momentum"})
_OTHER = frozenset(
    {"nu", "nu_max", "v", "n", "v_row", "v_col", "sum_of_squares", "hessian", "e_g", "e_x"}
)


@answers_as_inner
class MomentHygieneState(NamedTuple):
    """State of ``moment_hygiene``."""

    calls: jax.Array  # shape=(), dtype=jnp.int32
    run: jax.Array  # shape=(), dtype=jnp.int32, rejected steps in a row up to now
    returns: jax.Array  # shape=(), dtype=jnp.int32, rollbacks that have been seen
    damped: jax.Array  # shape=(), dtype=jnp.int32, how often
    resets: jax.Array  # shape=(), dtype=jnp.int32, how often
    wrapped_state: Any


@shown
def moment_hygiene(
    inner: optax.GradientTransformation,
    *,
    damp: ArrayLike = 0.5,
    damp_after: int = 2,
    reset_after: int = 20,
    reset_on_rollback: bool = False,
) -> optax.GradientTransformationExtraArgs:
    r"""Damp or reset moments that a run of rejected steps has made outdated.

    Use it around a guard if rejections come in runs: the moments are held meanwhile, and the
    first step after the run follows the direction from before it. ``gs.rollback`` can be in
    between: ``gs.recovery.moment_hygiene(gs.rollback(gs.guard(optax.adamw(3e-4))))``.

    With ``r`` rejected steps in a row,

    .. math:: m \leftarrow d\, m \quad \text{at } r = r_d, \qquad
              (t, m, v) \leftarrow (0, 0, 0) \quad \text{at } r = r_0

    once in each run, before the step that follows. Damping makes the first moment what it would
    be if all gradients so far had been ``d`` times as large, so that its bias correction stays
    right. The second moment is unchanged, and the steps that follow are shorter, never longer.
    A reset restarts the whole estimator, including the count for its bias correction; counts of
    schedules are not touched. The first step after it is as long as the first of a run: put
    ``gs.backoff`` around it.

    Known weakness: moments are found by the names of their fields (``mu``, ``nu``, ``trace``, ...),
    in states of optax and of this package. Under other names they are left unchanged. Damping also
    leaves alone those that ``gs.precision.compress_moments`` stores as codes.

    Args:
      inner: a transform with a guard (or another judging transform) in it.
      damp: ``d``, in [0, 1]. Default 0.5.
      damp_after: :math:`r_d`, >= 1. Default 2: a single bad batch says nothing about the moments.
      reset_after: :math:`r_0`, >= 1. Default 20, twice the memory of ``b1=0.9``.
      reset_on_rollback: whether to also reset after a rollback, whose moments are as old as the
        copy. Default ``False``: they fit the parameters that were copied with them.

    Returns:
      A ``GradientTransformationExtraArgs`` with a ``MomentHygieneState``; updates are those of
      ``inner``; ``update`` needs ``params``. Only steps that damp or reset cost an extra pass.

    Raises:
      TypeError: if ``inner`` is not a transform.
      ValueError: if a number is out of range; at ``init`` if nothing in ``inner`` judges or
        there are no moments in it; in ``update`` if ``params`` are missing.

    Example:
      >>> import jax.numpy as jnp
      >>> import optax
      >>> import gradstable as gs
      >>> tx = gs.recovery.moment_hygiene(gs.guard(optax.sgd(1.0, momentum=0.9)))
      >>> params = jnp.ones(())
      >>> state = tx.init(params)
      >>> for gradient in (1.0, jnp.nan, jnp.nan, 0.0):
      ...     updates, state = tx.update(jnp.asarray(gradient), state, params)
      >>> round(float(updates), 4)
      -0.45

    Source:
      Our own; the reset is that of SPAM (Huang et al., 2025, arXiv:2501.06842), but only on demand.
    """
    inner = inside("moment_hygiene", inner)
    check_number("damp", damp, at_least=0.0, at_most=1.0)
    check_size("damp_after", damp_after, at_least=1)
    check_size("reset_after", reset_after, at_least=1)

    def init_fn(params: optax.Params) -> MomentHygieneState:
        inner_state = own_arrays(inner.init(params))
        _check_inner(inner_state)
        zeros = (jnp.zeros((), jnp.int32) for _ in MomentHygieneState._fields[:-1])
        return MomentHygieneState(*zeros, wrapped_state=inner_state)

    def update_fn(
        updates: optax.Updates,
        state: optax.OptState,
        params: optax.Params | None = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, MomentHygieneState]:
        old = check_state(state, MomentHygieneState, "moment_hygiene")
        known = as_at_init(check_params(params, "moment_hygiene"), updates)
        damps, resets = old.run == damp_after, old.run == reset_after
        if reset_on_rollback:
            resets |= returns(old.wrapped_state) != old.returns

        def begin_anew(now: Any) -> Any:
            fresh = take_types(inner.init(known), now, name="state")
            return _map(lambda _, new: new, now, fresh)

        # Before the step: after it, XLA would have to copy what the step still reads.
        before = run_if(damps, lambda now: _map(_damp(damp), now, now), old.wrapped_state)
        before = run_if(resets, begin_anew, before)
        with explaining(updates, params):
            stepped, inner_state = inner.update(updates, before, params, **extra_args)
        more = rejections(inner_state) != rejections(old.wrapped_state)
        new = MomentHygieneState(
            calls=increment(old.calls),
            run=jnp.where(more, increment(old.run), 0),
            returns=returns(old.wrapped_state),
            damped=jnp.where(damps, increment(old.damped), old.damped),
            resets=jnp.where(resets, increment(old.resets), old.resets),
            wrapped_state=inner_state,
        )
        return stepped, new

    return wrapping(inner, init_fn, update_fn)


def _is_estimator(node: object) -> bool:
    return not _FIRST.union(_OTHER).isdisjoint(getattr(node, "_fields", ()))


def _map(change: Any, state: Any, other: Any) -> Any:
    """Return a state whose estimators are changed, except for those in copies."""

    def visit(node: Any, counterpart: Any) -> Any:
        return change(node, counterpart) if _is_estimator(node) else node

    def stop(node: object) -> bool:
        return isinstance(node, Snapshots) or _is_estimator(node)

    return jax.tree.map(visit, state, other, is_leaf=stop)


def _damp(factor: ArrayLike) -> Any:
    def shrink(leaf: Any) -> jax.Array:
        array = jnp.asarray(leaf)
        if not is_inexact(array):  # codes, where half of one means something else
            return array
        dtype = wide(array.dtype)
        return (array.astype(dtype) * jnp.asarray(factor, dtype)).astype(array.dtype)

    def change(node: Any, _: Any) -> Any:
        first = {name: getattr(node, name) for name in node._fields if name in _FIRST}
        return node._replace(**jax.tree.map(shrink, first))

    return change


def _check_inner(inner_state: Any) -> None:
    if not find_all(inner_state, Ledger):
        msg = (
            "moment_hygiene needs a guard inside, to detect rejected steps: "
            "gradstable.recovery.moment_hygiene(gradstable.guard(inner))"
        )
        raise ValueError(msg)
    found: list[Any] = []
    _map(lambda node, _: found.append(node), inner_state, inner_state)
    if not found:
        msg = (
            "moment_hygiene found no moments in the state of inner, so there is nothing to do. It "
            f"looks for fields named {sorted(_FIRST | _OTHER)}"
        )
        raise ValueError(msg)
