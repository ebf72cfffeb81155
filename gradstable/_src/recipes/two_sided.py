"""Adam with a step capped twice in one pass: by its own size and by that of the parameters."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike, DTypeLike

from gradstable._src.core.axis_name import AxisName
from gradstable._src.core.layout import Split, Within, together, withins_of
from gradstable._src.core.numerics import abs_square, float32, widen
from gradstable._src.core.tree_checks import check_params, check_updates
from gradstable._src.core.types import Mask
from gradstable._src.core.units import Units
from gradstable._src.core.weight_decay import decay_at
from gradstable._src.core.xla import never, once
from gradstable._src.moments.adam import quotient, scale_by_adam
from gradstable._src.moments.decay import Decay
from gradstable._src.moments.engine import under_guard
from gradstable._src.rate.cap_trust import smallest_rms, toward_zero, trust_limit
from gradstable._src.rate.sizes import factor_to, rms_of
from gradstable._src.recipes.per_unit import PerUnit


class Caps(NamedTuple):
    """The limits of a step, and the parts of a leaf that have their own limits."""

    max_rms: ArrayLike
    max_ratio: ArrayLike
    floor: ArrayLike
    relative_floor: ArrayLike
    units: Units


def two_sided_adam(
    learning_rate: optax.ScalarOrSchedule,
    *,
    b1: ArrayLike,
    b2: ArrayLike,
    eps: ArrayLike,
    mu_dtype: DTypeLike | None,
    nu_dtype: DTypeLike | None,
    weight_decay: optax.ScalarOrSchedule,
    mask: Mask,
    caps: Caps,
    axis_name: AxisName,
) -> optax.GradientTransformationExtraArgs:
    """Make the step of ``stable_adamw`` for use inside a guard.

    It is equivalent to the chain of ``scale_by_adam``, ``cap_update_rms``, decay, rate and
    ``cap_trust``, in which XLA would write each update to memory to compute its norm: 21 words per
    parameter instead of 14. Here the norms are computed first, from moments and parameters, and
    both caps are factors in the last product. To do so, the norm of the whole step is replaced by
    an upper bound, the sum of the norms of its two parts.
    """
    adam = under_guard(scale_by_adam(b1=b1, b2=b2, eps=eps, mu_dtype=mu_dtype, nu_dtype=nu_dtype))
    # The smallest value that the bias correction of nu can give eps.
    least_eps = float32(eps) * jnp.sqrt(1.0 - float32(b2))

    def update_fn(
        updates: optax.Updates,
        state: optax.OptState,
        params: optax.Params | None = None,
        **_: Any,
    ) -> tuple[optax.Updates, Any]:
        check_params(params, "stable_adamw")
        updates, params = check_updates(updates, params)
        old: Any = state
        # Stay in float32 until the end: bfloat16 would be rounded twice.
        directions, state = adam.update(widen(updates), state, params)
        new: Any = state
        corrects = jnp.sqrt(Decay.of(b2, new.count).corrects) / Decay.of(b1, new.count).corrects
        rate = float32(learning_rate(old.count) if callable(learning_rate) else learning_rate)

        leaves, structure = jax.tree.flatten(updates)
        withins = withins_of(updates, caps.units, axis_name)
        moved = [jax.tree.leaves(tree) for tree in (directions, new.mu, new.nu)]
        thetas = [t.astype(u.dtype) for t, u in zip(jax.tree.leaves(params), moved[0], strict=True)]
        norms = _norms(thetas, withins)
        least = smallest_rms(_rms_of_all(norms, thetas, withins), caps.floor, caps.relative_floor)
        if _are_rounded(*moved):
            # The stored moments do not give the length of the step computed before they were
            # rounded.
            longest = _norms(moved[0], withins)
        else:
            longest = _norms_of_adam(moved[1], moved[2], norms, least, least_eps, corrects, withins)

        decay = float32(decay_at(weight_decay, old.count))
        decays = jax.tree.leaves(_decays(decay, mask, params))
        factors = _factors(caps, rate, least, norms, longest, norms.like(decays), withins)
        rows = zip(moved[0], thetas, decays, *factors, strict=True)
        steps = map(_round, leaves, [_step(rate, *row) for row in rows])
        return jax.tree.unflatten(structure, steps), new

    return optax.GradientTransformationExtraArgs(adam.init, update_fn)


def _factors(
    caps: Caps,
    rate: jax.Array,
    least: jax.Array,
    norms: PerUnit,
    longest: PerUnit,
    decays: PerUnit,
    withins: Sequence[Within],
) -> tuple[list[jax.Array], list[jax.Array]]:
    """Return the factors by which the two caps shorten the step of each unit."""
    counts = norms.like([float(within.entries) for within in withins])

    def of_size(longest: jax.Array, count: jax.Array) -> jax.Array:
        return factor_to(float32(caps.max_rms) * jnp.sqrt(count), longest)

    def of_trust(
        norm: jax.Array, longest: jax.Array, decay: jax.Array, count: jax.Array, rms: jax.Array
    ) -> jax.Array:
        limit = trust_limit(norm, count, caps.max_ratio, least)
        return factor_to(limit, rate * (rms * longest + decay * norm))

    rms = longest.map(of_size, counts)
    return rms.leaves(), norms.map(of_trust, longest, decays, counts, rms).leaves()


def _step(
    rate: jax.Array,
    u: jax.Array,
    theta: jax.Array,
    decay: jax.Array,
    rms: jax.Array,
    trust: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    """Return the step of a leaf, and the factor by which the trust cap shortens each unit."""
    return _product(-rate * trust, _product(rms, u) + _product(decay, theta)), trust


def _round(g: jax.Array, step: tuple[jax.Array, jax.Array]) -> jax.Array:
    exact, trust = step
    if g.dtype == exact.dtype:
        return exact
    return jnp.where(trust == 1.0, exact.astype(g.dtype), toward_zero(exact, g.dtype))


def _are_rounded(
    directions: Sequence[jax.Array], mus: Sequence[jax.Array], nus: Sequence[jax.Array]
) -> bool:
    """Whether moments are stored in fewer bits than the step was computed in."""
    return any(
        min(jnp.finfo(mu.dtype).bits, jnp.finfo(nu.dtype).bits) < jnp.finfo(u.dtype).bits
        for u, mu, nu in zip(directions, mus, nus, strict=True)
    )


def _norms_of_adam(
    mus: Sequence[jax.Array],
    nus: Sequence[jax.Array],
    norms: PerUnit,
    of_all: jax.Array,
    eps: jax.Array,
    corrects: jax.Array,
    withins: Sequence[Within],
) -> PerUnit:
    """Return the norms of Adam's updates, by unit.

    Unlike in the update, the correction is applied outside the sum: if XLA noticed that both
    expressions are the same, it would write the update to memory.

    Args:
      mus: first moments.
      nus: second moments.
      norms: of the parameters, by unit.
      of_all: a number >= 0 that depends on all of these norms.
      eps: what is added to the root.
      corrects: the correction of both moments.
      withins: the units.
    """
    # No norm is negative, but XLA cannot know that. All parameter norms come first: on a mesh, they
    # are then summed over the devices together, as are these, instead of leaf by leaf.
    first = once(of_all, jnp.reshape(of_all, (1,)))

    # A constant shared by all leaves would be written to memory once, at the size of a leaf, and
    # read for each of them.
    own_eps = norms.map(lambda norm: jnp.where((norm < 0.0) | never(first), 0.0, eps))

    def update(mu: jax.Array, nu: jax.Array, eps: jax.Array) -> jax.Array:
        return quotient(mu, jnp.sqrt(nu), eps)

    before = _norms(list(map(update, mus, nus, own_eps.leaves())), withins)
    return before.map(lambda norm: norm * corrects)


def _norms(leaves: Sequence[jax.Array], withins: Sequence[Within]) -> PerUnit:
    # No special path for huge numbers as in gs.global_norm: where a square overflows, the step is
    # 0.
    here = [
        jnp.sum(abs_square(values), axis=within.dims, keepdims=True)
        for values, within in zip(leaves, withins, strict=True)
    ]
    totals = together(here, [Split(within.names) for within in withins])
    return PerUnit.of(totals).map(lambda total: jnp.sqrt(total).astype(jnp.float32))


def _rms_of_all(
    norms: PerUnit, leaves: Sequence[jax.Array], withins: Sequence[Within]
) -> jax.Array:
    """Return the RMS of all leaves, from the norms of the units that this device holds."""
    here = [jnp.sum(jnp.square(norm)) for norm in norms.others]
    # The norm of a unit is that over all devices, but each device has only some of the units.
    several = [w for w, whole in zip(withins, norms.is_whole, strict=True) if not whole]
    rest = [[name for name in w.split.names if name not in w.names] for w in several]
    squares = together(here, [Split(tuple(names)) for names in rest])
    squares.append(jnp.sum(jnp.square(norms.whole)))
    pairs = zip(leaves, withins, strict=True)
    return rms_of(squares, float(sum(leaf.size * w.split.parts for leaf, w in pairs)))


def _decays(decay: jax.Array, mask: Mask, params: Any) -> Any:
    """Return a float32 scalar for each leaf."""
    chosen = mask(params) if callable(mask) else True if mask is None else mask
    each = jax.tree.broadcast(chosen, params)
    nothing = jnp.zeros_like(decay)

    def of(decays: Any) -> jax.Array:
        if isinstance(decays, bool):  # known: nothing to trace for a thousand leaves
            return decay if decays else nothing
        return jnp.where(decays, decay, nothing)

    return jax.tree.map(of, each)


def _product(factor: jax.Array, values: jax.Array) -> jax.Array:
    return factor.astype(values.dtype) * values
