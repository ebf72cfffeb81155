"""Adam whose step is capped twice, by its own size and by that of the parameters, in one pass."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jax.typing import ArrayLike

from gradstable._core.checks import check_params, check_updates
from gradstable._core.norms import AxisName
from gradstable._core.numerics import abs_square, float32, widen
from gradstable._core.types import Mask
from gradstable._core.units import Units, unit_axes
from gradstable.moments.adam import scale_by_adam
from gradstable.moments.decay import Decay
from gradstable.moments.engine import under_guard
from gradstable.rate.cap_trust import toward_zero, trust_limit
from gradstable.rate.sizes import factor_to


class Caps(NamedTuple):
    """The limits of a step, and the parts of a leaf that have limits of their own."""

    max_rms: ArrayLike
    max_ratio: ArrayLike
    floor: ArrayLike
    units: Units


def two_sided_adam(
    learning_rate: optax.ScalarOrSchedule,
    *,
    b1: ArrayLike,
    b2: ArrayLike,
    eps: ArrayLike,
    weight_decay: ArrayLike,
    mask: Mask,
    caps: Caps,
    axis_name: AxisName,
) -> optax.GradientTransformationExtraArgs:
    """Make the step of ``stable_adamw``, for the inside of a guard.

    It is the chain of ``scale_by_adam``, ``cap_update_rms``, decay, rate and ``cap_trust``, in
    which XLA would write each update to memory for the sake of its norm: 21 words a parameter
    instead of 14. Here the norms come first, from moments and parameters, and both caps are
    factors within the last product. For that, the norm of the whole step is taken for the sum
    of the norms of its two parts, which it does not exceed.
    """
    adam = under_guard(scale_by_adam(b1=b1, b2=b2, eps=eps))
    # The least that the bias correction of nu makes of eps.
    least_eps = float32(eps) * jnp.sqrt(1.0 - float32(b2))

    def update_fn(
        updates: optax.Updates,
        state: optax.OptState,
        params: optax.Params | None = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, Any]:
        del extra_args
        check_params(params, "stable_adamw")
        check_updates(updates, params)
        old: Any = state
        # In float32 until the end: bfloat16 would be rounded twice.
        directions, state = adam.update(widen(updates), state, params)
        new: Any = state
        corrects = jnp.sqrt(Decay.of(b2, new.count).corrects) / Decay.of(b1, new.count).corrects
        rate = float32(learning_rate(old.count) if callable(learning_rate) else learning_rate)

        def step(
            u: jax.Array,
            theta: jax.Array,
            mu: jax.Array,
            nu: jax.Array,
            decay: jax.Array,
            within: tuple[int, ...],
        ) -> tuple[jax.Array, jax.Array]:
            theta = theta.astype(u.dtype)
            norm, count = _norm(theta, within, axis_name), _count(theta, within, axis_name)
            longest = _norm_of_adam(mu, nu, norm, least_eps, within, axis_name) * corrects
            rms = factor_to(float32(caps.max_rms) * jnp.sqrt(count), longest)
            limit = trust_limit(norm, count, caps.max_ratio, caps.floor)
            trust = factor_to(limit, rate * (rms * longest + decay * norm))
            return _product(-rate * trust, _product(rms, u) + _product(decay, theta)), trust

        leaves, structure = jax.tree.flatten(updates)
        trees = directions, params, new.mu, new.nu, _decays(weight_decay, mask, params)
        units = unit_axes(caps.units, updates)
        exact = [step(*row) for row in zip(*map(jax.tree.leaves, trees), units, strict=True)]
        steps = map(_round, leaves, exact)
        return jax.tree.unflatten(structure, steps), new

    return optax.GradientTransformationExtraArgs(adam.init, update_fn)


def _round(g: jax.Array, step: tuple[jax.Array, jax.Array]) -> jax.Array:
    exact, trust = step
    if g.dtype == exact.dtype:
        return exact
    return jnp.where(trust == 1.0, exact.astype(g.dtype), toward_zero(exact, g.dtype))


def _norm_of_adam(
    mu: jax.Array,
    nu: jax.Array,
    norm: jax.Array,
    eps: jax.Array,
    within: tuple[int, ...],
    axis_name: AxisName,
) -> jax.Array:
    """Return the norm of Adam's update, by unit, before the bias correction.

    The correction stands outside of the sum, and not as in the update: if XLA found out that
    both are the same, it would write the update to memory.
    """
    # No norm is negative, but XLA cannot know. One constant for all leaves would be written to
    # memory once, as large as a leaf, and be read for each of them.
    own_eps = jnp.where(norm < 0.0, 0.0, eps)
    return _norm(mu / (jnp.sqrt(nu) + own_eps.astype(nu.dtype)).astype(mu.dtype), within, axis_name)


def _norm(values: jax.Array, within: tuple[int, ...], axis_name: AxisName) -> jax.Array:
    # No way for huge numbers as in gs.global_norm: where a square overflows, the step is zero.
    total = jnp.sum(abs_square(values), axis=within, keepdims=True)
    total = total if axis_name is None else lax.psum(total, axis_name)
    return jnp.sqrt(total).astype(jnp.float32)


def _count(leaf: jax.Array, within: tuple[int, ...], axis_name: AxisName) -> jax.Array:
    count = float32(math.prod(leaf.shape[axis] for axis in within))
    return count if axis_name is None else count * lax.psum(1, axis_name)


def _decays(weight_decay: ArrayLike, mask: Mask, params: Any) -> Any:
    """Return a float32 scalar for each leaf."""
    chosen = mask(params) if callable(mask) else True if mask is None else mask
    decay = float32(weight_decay)
    each = jax.tree.broadcast(chosen, params)
    nothing = jnp.zeros_like(decay)

    def of(decays: Any) -> jax.Array:
        if isinstance(decays, bool):  # known: nothing to trace for a thousand leaves
            return decay if decays else nothing
        return jnp.where(decays, decay, nothing)

    return jax.tree.map(of, each)


def _product(factor: jax.Array, values: jax.Array) -> jax.Array:
    return factor.astype(values.dtype) * values
