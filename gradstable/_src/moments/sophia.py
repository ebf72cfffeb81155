"""Sophia: a momentum divided by the diagonal of the Hessian, capped entry by entry."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike, DTypeLike

from gradstable._src.core.checks import check_number
from gradstable._src.core.select import run_branch
from gradstable._src.core.shown import shown
from gradstable._src.core.tree_checks import (
    check_params,
    check_same_tree,
    check_state,
    check_updates,
    leaves_by_path,
)
from gradstable._src.moments.decay import Decay, check_decays
from gradstable._src.moments.engine import LeafRule, Slot, max_squared, moments

_MISSING = (
    "scale_by_sophia needs an estimate of the diagonal of the Hessian: call update(updates, "
    "state, params, hessian=estimate), with a tree like the parameters or a function from them to "
    "one"
)


class ScaleBySophiaState(NamedTuple):
    """State of ``scale_by_sophia``."""

    count: jax.Array  # shape=(), dtype=jnp.int32, update calls
    mu: Any  # like params, float32 or mu_dtype, average of gradients
    hessian: Any  # like params, float32, average of estimates of the diagonal


@shown
def scale_by_sophia(
    *,
    b1: ArrayLike = 0.965,
    b2: ArrayLike = 0.99,
    eps: ArrayLike = 1e-8,
    gamma: ArrayLike = 0.01,
    clip_threshold: ArrayLike = 1.0,
    update_interval: ArrayLike = 10,
    mu_dtype: DTypeLike | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Divide a momentum by the diagonal of the Hessian, and cap every entry.

    Use it where you can afford a Hessian-vector product every tenth step, and curvature differs
    widely between weights.

    .. math::
      \mu &\leftarrow b_1 \mu + (1 - b_1) g \\
      h &\leftarrow b_2 h + (1 - b_2) \hat h \quad \text{if } t \equiv 1 \bmod k \\
      u &= clip(\mu / \max(\gamma h, \epsilon), \pm 1)

    ``update`` takes the estimate :math:`\hat h` as the extra argument ``hessian``: a tree like the
    gradients, or (better) a function from the parameters to one. The function runs only in the
    steps that use it, even under ``jit`` (by ``lax.cond``, compiled once), and stays in step with
    the optimizer where a guard rejects a step. A tree is read every ``update_interval`` steps of
    the optimizer and ignored otherwise. Any estimator of the diagonal works: Hutchinson's
    (Sophia-H), or the squared gradient on labels sampled from the model, times the batch size
    (Sophia-G).

    Whatever the gradients, :math:`|u| \le 1` (``clip_threshold``). Where the curvature is not
    positive, or not known yet, only the cap limits the step: :math:`u = sign(\mu)`. As in the
    paper, nothing is bias-corrected; ``optax.contrib.sophia`` corrects :math:`\mu`, and divides by
    the :math:`h` of the previous step.

    A spike takes over the momentum, as in Lion: after one of 1000 times the usual size, the step is
    the full cap for 101 steps even if all later gradients point the other way.

    Args:
      b1: decay of the momentum, in [0, 1). Default 0.965 (the authors' code; the paper has 0.96).
      b2: decay of the diagonal, in [0, 1). Default 0.99 (the paper's).
      eps: the least denominator, >= 0. Default 1e-8, as in optax; 1e-12 in the paper.
      gamma: :math:`\gamma`, factor on the diagonal, > 0. Default 0.01 (the paper's for Sophia-H;
        0.05 for Sophia-G). Larger: fewer entries at the cap.
      clip_threshold: the cap, > 0. Default 1 (the paper's).
      update_interval: :math:`k`, in steps, >= 1. Default 10 (the paper's).
      mu_dtype: dtype in which ``mu`` is stored. Default float32 (wider for wider parameters).

    Returns:
      A ``GradientTransformationExtraArgs`` with a ``ScaleBySophiaState``; updates have the
      structure and the dtypes of the gradients. An entry that is not finite, or above
      ``2**62``, leaves its statistics as they are, in the gradient and in the estimate.

    Raises:
      ValueError: if a hyper-parameter is out of its range, and in ``update`` if ``hessian`` is
        missing or has a different tree structure.

    Example:
      >>> import jax
      >>> import jax.numpy as jnp
      >>> import gradstable as gs
      >>> loss = lambda x: jnp.sum(jnp.array([1.0, 100.0, -1.0]) * x**2)
      >>> def hutchinson(params):
      ...     signs = jax.random.rademacher(jax.random.key(0), params.shape, params.dtype)
      ...     return signs * jax.jvp(jax.grad(loss), (params,), (signs,))[1]
      >>> tx = gs.moments.scale_by_sophia(b2=0.0, gamma=1.0)
      >>> params = jnp.array([0.5, 0.5, 0.5])
      >>> state = tx.init(params)
      >>> updates, state = tx.update(jax.grad(loss)(params), state, params, hessian=hutchinson)
      >>> [round(x, 4) for x in updates.tolist()]
      [0.0175, 0.0175, -1.0]

    Source:
      Liu, Li, Hall, Liang, Ma, "Sophia: A Scalable Stochastic Second-order Optimizer for
      Language Model Pre-training", 2023, arXiv:2305.14342.
    """
    check_decays(b1=b1, b2=b2)
    check_number("eps", eps, at_least=0.0)
    check_number("gamma", gamma, above=0.0)
    check_number("clip_threshold", clip_threshold, above=0.0)
    check_number("update_interval", update_interval, at_least=1)

    def at(count: jax.Array) -> LeafRule:
        first = Decay.of(b1, count)

        def learn(g: jax.Array, mu: jax.Array, h: jax.Array) -> tuple[jax.Array, jax.Array]:
            return first.mix(mu, g), h

        def direct(_: jax.Array, new: tuple[jax.Array, ...], __: object) -> jax.Array:
            mu, h = new
            floor = jnp.asarray(eps, h.dtype)
            ratio = mu / jnp.maximum(jnp.asarray(gamma, h.dtype) * h, floor)
            cap = jnp.asarray(clip_threshold, mu.dtype)
            return jnp.where(mu == 0, jnp.zeros_like(mu), jnp.clip(ratio, -cap, cap))

        return LeafRule(learn, direct)

    slots = (Slot("mu", mu_dtype), Slot("hessian"))
    inner = moments("scale_by_sophia", ScaleBySophiaState, slots, at)

    def update_fn(
        updates: optax.Updates,
        state: optax.OptState,
        params: optax.Params | None = None,
        *,
        hessian: Any | Callable[[Any], Any] | None = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, optax.OptState]:
        del extra_args
        old = check_state(state, ScaleBySophiaState, "scale_by_sophia")
        updates, params = check_updates(updates, params)
        if hessian is None:
            raise ValueError(_MISSING)
        due = old.count % jnp.asarray(update_interval, jnp.int32) == 0
        second = Decay.of(b2, old.count)

        def mixed() -> Any:
            given = _estimate(hessian, params)
            check_same_tree("hessian", leaves_by_path(given), "updates", leaves_by_path(updates))
            return jax.tree.map(lambda new, h: _mix(second, new, h), given, old.hessian)

        learned = run_branch(due.astype(jnp.int32), (lambda: old.hessian, mixed))
        return inner.update(updates, old._replace(hessian=learned), params)

    return optax.GradientTransformationExtraArgs(inner.init, update_fn)


def _estimate(hessian: Any, params: optax.Params | None) -> Any:
    """Return the estimate itself; a callable tree (a model, say) counts as a tree."""
    if not callable(hessian) or not jax.tree_util.all_leaves([hessian]):
        return hessian
    check_params(params, "scale_by_sophia, where hessian is a function,")
    return hessian(params)


def _mix(second: Decay, new: ArrayLike, h: jax.Array) -> jax.Array:
    new = jnp.asarray(new)
    sound = jnp.abs(new) <= max_squared(new.dtype)
    return jnp.where(sound, second.mix(h, jnp.where(sound, new, 0).astype(h.dtype)), h)
