"""Limit steps to a trust region that learns from what the last steps did."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike

from gradstable._src.core.act import scale_updates
from gradstable._src.core.axis_name import AxisName, check_axis_name
from gradstable._src.core.checks import check_number
from gradstable._src.core.derivatives import constant
from gradstable._src.core.equations import as_at_init
from gradstable._src.core.names import answers_as_inner
from gradstable._src.core.numerics import increment, widest
from gradstable._src.core.order import inside
from gradstable._src.core.scale import UNSCALE, wrapping
from gradstable._src.core.select import own_arrays, run_branch
from gradstable._src.core.shown import shown
from gradstable._src.core.spot import run_and_take
from gradstable._src.core.tree_checks import check_params, check_state
from gradstable._src.core.wrapped import explaining
from gradstable._src.rate.glance import Glance
from gradstable._src.rate.region import Law, Reading, Region, new_region, shorten


@answers_as_inner
class GovernState(NamedTuple):
    """State of ``govern``."""

    calls: jax.Array  # shape=(), dtype=jnp.int32
    step_factor: jax.Array  # shape=(), dtype=jnp.float32, the factor of the last step
    shortened: jax.Array  # shape=(), dtype=jnp.int32, steps with a factor below 1
    region: Region
    sampled_step: jax.Array  # shape=(M,), a few entries of the last step that moved anything
    wrapped_state: Any


@shown
def govern(
    inner: optax.GradientTransformation,
    *,
    start: ArrayLike = 0.01,
    growth: ArrayLike = 0.02,
    large: ArrayLike = 0.015,
    axis_name: AxisName = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Limit steps to a trust region that learns from what the last steps did.

    Use it when a run explodes by itself: the learning rate is too high, now or for a while, the
    start is too steep, or there is no warm-up. Put it around the guard, which keeps out bad
    batches: ``gs.govern(gs.guard(optax.adamw(3e-4)))``. It never makes a step longer, and in the
    runs that we have measured it leaves a learning rate that works alone (``docs/design``).

    After a step :math:`u_{t-1}`, the new gradient says whether it went too far: :math:`r_t` is -1
    if the slope along the step is what it was, 0 if the step led to the minimum along its
    direction, and 1 if it led as far to the other side.

    .. math::
      r_t &= \frac{\langle g_t, u_{t-1} \rangle}{|\langle g_{t-1}, u_{t-1} \rangle|}, \qquad
      o_t = 0.8\, o_{t-1} + 0.2\, \mathrm{clip}(r_t, -1.5, 1.5) \\
      \Delta_t &= \begin{cases}
        \min(\Delta_{t-1}, \|u_{t-1}\|)\, e^{-o_t / 2}
            & o_t > 0,\ \|u_{t-1}\| > \ell\, \|\theta\| \\
        \max(\Delta_{t-1}, \min(\Delta_{t-1}\, e^{\gamma + 2/t},\ 2 \|u_{t-1}\|))
            & \text{else} \end{cases} \\
      u_t &= u \min(1, \Delta_t / \|u\|), \qquad \Delta_0 = \rho\, \|\theta_0\|

    with the step ``u`` of ``inner``. Two witnesses must agree before a step is shortened for what
    it did. At the noise floor, steps overshoot as a matter of course: there, they are short. And
    while a network learns fast, its steps can be long: there, they do not overshoot. The limit on
    growth stops a sudden rise of the rate, and acts as a warm-up of a few steps for a rate that is
    too high to begin with. If the schedule lowers the rate, nothing is limited.

    Whatever the gradients are, :math:`\|u_t\| \le \rho \|\theta_0\| \prod_{k \le t} e^{\gamma +
    2/k}`, by induction over the second case. On a quadratic, a step can lead farther from the
    minimum than the run has ever been only if :math:`r > 1` after it, and it is then shorter than
    the radius; ``docs/design`` says what follows.

    Inner products are estimated from one entry in 128 (all of up to 16,384), at a fifth of a word
    per parameter, and no copies. :math:`\|\theta\|` counts only parameters that the step moves. A
    step that moves nothing, as when the guard rejects it, changes nothing here either.

    Known weakness: for parameters that are all zero at the start, their size says nothing. They
    count as an RMS of 0.01, so that Adam with a rate of 0.1 begins slowly, for 30 steps. And it
    does not know a loss: a rate at which nothing is learned, but nothing overshoots, passes.

    Args:
      inner: any optax transform, preferably a guard around an optimizer.
      start: :math:`\rho`, the length of the first step relative to the parameters, > 0. Default
        0.01, which Adam with a rate of 1e-3 exceeds for two steps in a layer 2500 wide.
      growth: :math:`\gamma`, how fast steps may outgrow the longest so far, per step, > 0. Default
        0.02, which doubles them in 35 steps.
      large: :math:`\ell`, the length relative to the parameters from which a step that overshoots
        is shortened, > 0. Default 0.015, above the steps of healthy runs that overshoot.
      axis_name: mesh axes over which the leaves are sharded, as for ``gs.guard``. Call ``init``
        inside ``jax.shard_map`` in that case.

    Returns:
      A ``GradientTransformationExtraArgs`` with a ``GovernState``; ``update`` needs ``params``.
      Updates have the structure and the dtypes that ``inner`` gives them, bit for bit where the
      factor is 1.

    Raises:
      TypeError: if ``inner`` is not a transform, or ``axis_name`` is of the wrong type.
      ValueError: if a number is out of range, or ``inner`` contains a rollback or ``kahan``; in
        ``update`` if ``params`` are missing.

    Example:
      >>> import jax
      >>> import jax.numpy as jnp
      >>> import optax
      >>> import gradstable as gs
      >>> steep = lambda w: 500.0 * jnp.sum((w - 3.0) ** 2)
      >>> tx = gs.govern(optax.sgd(1.0))  # 500 times the largest stable rate
      >>> params = jnp.ones(2)
      >>> state = tx.init(params)
      >>> for _ in range(300):
      ...     updates, state = tx.update(jax.grad(steep)(params), state, params)
      ...     params = optax.apply_updates(params, updates)
      >>> bool(jnp.all(jnp.abs(params - 3.0) < 0.1))
      True

    Source:
      Ours. The sign of the inner product is the gradient test of O'Donoghue, Candes, "Adaptive
      Restart for Accelerated Gradient Schemes", 2012, arXiv:1204.3982; hypergradient descent
      adjusts the rate by it (Baydin et al., 2017, arXiv:1703.04782). Radius by what a step did:
      trust-region methods (Levenberg, 1944).
    """
    check_number("start", start, above=0.0)
    check_number("growth", growth, above=0.0)
    check_number("large", large, above=0.0)
    check_axis_name(axis_name)
    inner = inside("govern", inner)

    def init_fn(params: optax.Params) -> GovernState:
        inner_state = own_arrays(inner.init(params))
        return GovernState(
            calls=jnp.zeros((), jnp.int32),
            step_factor=jnp.ones((), jnp.float32),
            shortened=jnp.zeros((), jnp.int32),
            region=new_region(widest(params)),
            sampled_step=Glance(params).zeros(),
            wrapped_state=inner_state,
        )

    return wrapping(inner, init_fn, _Update(inner, Law(start, growth, large), axis_name))


class _Update:
    """The update function."""

    def __init__(
        self, inner: optax.GradientTransformationExtraArgs, law: Law, axis_name: AxisName
    ) -> None:
        self._inner, self._law, self._axis_name = inner, law, axis_name

    def __deepcopy__(self, _: object) -> "_Update":
        return self  # like a function

    def __call__(
        self,
        updates: optax.Updates,
        state: optax.OptState,
        params: optax.Params | None = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, GovernState]:
        old = check_state(state, GovernState, "govern")
        params = check_params(params, "govern")
        # A number without a gradient was no parameter in ``init``.
        known = as_at_init(params, updates)
        glance = Glance(known)
        inner = partial(self._inner.update, **extra_args)
        with explaining(updates, params):
            stepped, inner_state, taken = run_and_take(
                inner, glance.take, updates, old.wrapped_state, params
            )
        vectors = (
            glance.vector(updates) * extra_args.get(UNSCALE, 1.0),
            glance.joined(taken),
            old.sampled_step,
            glance.vector(known),
        )
        read, step = _read(glance, constant(vectors), old.calls, self._axis_name)
        factor, region = shorten(old.region, read, self._law)
        moved = region.moves > old.region.moves
        new = GovernState(
            calls=increment(old.calls),
            step_factor=factor.astype(jnp.float32),
            shortened=jnp.where(factor < 1.0, increment(old.shortened), old.shortened),
            region=region,
            sampled_step=jnp.where(moved, factor * step, old.sampled_step),
            wrapped_state=inner_state,
        )
        return scale_updates(stepped, factor), new


def _read(
    glance: Glance, vectors: tuple[jax.Array, ...], calls: jax.Array, axis_name: AxisName
) -> tuple[Reading, jax.Array]:
    """Return the inner products of a step, and its entries.

    Entries are taken once, before anything that depends on them is written: in a branch, which XLA
    does not repeat. Otherwise it takes them twice, the second time from a copy of the arrays.
    """
    gradient, step, before, here = run_branch(
        (calls < 0).astype(jnp.int32),
        (lambda: vectors, lambda: jax.tree.map(jnp.zeros_like, vectors)),
    )
    moves = step != 0.0
    moved = jnp.where(moves, here, 0.0)
    pairs = ((gradient, before), (gradient, step), (step, step), (moved, moved))
    along, descent, length, extent = glance.products(pairs, axis_name)
    entries = jnp.mean(moves, dtype=step.dtype) * float(glance.entries)
    return Reading(along, descent, jnp.sqrt(length), jnp.sqrt(extent), entries), step
