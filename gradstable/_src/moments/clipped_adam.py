"""StableAdamW's moments: Adam with smaller steps where gradients outgrow the second moment."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike, DTypeLike

from gradstable._src.core.axis_name import AxisName, check_axis_name
from gradstable._src.core.checks import check_number
from gradstable._src.core.layout import Within, together, withins_of
from gradstable._src.core.numerics import root, widen
from gradstable._src.core.shown import shown
from gradstable._src.core.tree_checks import check_state, check_updates
from gradstable._src.core.types import Mask
from gradstable._src.core.units import Units, check_units, unit_axes
from gradstable._src.core.weight_decay import check_weight_decay, decay_at, decay_weights
from gradstable._src.moments.adam import divide
from gradstable._src.moments.decay import Decay, check_decays
from gradstable._src.moments.engine import LeafRule, Slot, max_squared, moments


class ScaleByClippedAdamState(NamedTuple):
    """State of ``scale_by_clipped_adam``."""

    count: jax.Array  # shape=(), dtype=jnp.int32, update calls
    mu: Any  # like params, float32 or mu_dtype, average of gradients
    nu: Any  # like params, float32 or nu_dtype, average of their squares
    rms: Any  # float32, of each unit at the last step; like params, size 1 along its axes


@shown
def scale_by_clipped_adam(
    *,
    b1: ArrayLike = 0.9,
    b2: ArrayLike = 0.99,
    eps: ArrayLike = 1e-8,
    max_rms: ArrayLike = 1.0,
    units: Units = "leaf",
    weight_decay: optax.ScalarOrSchedule = 0.0,
    mask: Mask = None,
    mu_dtype: DTypeLike | None = None,
    nu_dtype: DTypeLike | None = None,
    axis_name: AxisName = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Rescale gradients by StableAdamW's rule: Adam with the update clipping of Adafactor.

    Use it in place of Adam where a second moment can go stale: a unit whose gradients outgrow it
    immediately takes a smaller step. It replaces gradient clipping, and costs one more read of the
    gradients.

    .. math::
      \mu &\leftarrow \hat b_1 \mu + (1 - \hat b_1) g, \qquad
      \nu \leftarrow \hat b_2 \nu + (1 - \hat b_2) g^2, \qquad
      \hat b = b \, \frac{1 - b^{t-1}}{1 - b^t} \\
      RMS &= \sqrt{mean_{unit}(g^2 / \max(\nu, \epsilon^2))} \\
      u &= \frac{1}{\max(1, RMS / c)}
        \left( \frac{\mu}{\sqrt{\nu} + \epsilon} + \lambda \theta \right)

    In the paper, weight decay shrinks along with the step, so it is part of this transform;
    ``optax.add_decayed_weights`` after it would not shrink.

    ``state.rms`` is also the earliest sign of a loss spike: in the paper, the spike follows 1 to 8
    steps after it rises. Steady noise keeps it within 0.1 of 1, and it is at most
    :math:`1 / \sqrt{1 - b_2}` = 10.

    Whatever the gradients, :math:`|u| \le 2.35` with the defaults and no decay, as in Adam. A spike
    of 1000 times the usual size in a whole unit makes a step of 0.1 times the usual length, and for
    the next 800 steps they stay below half of it, since ``nu`` remembers.

    Args:
      b1: decay of the first moment, in [0, 1). Default 0.9 (the paper's).
      b2: decay of the second moment, in [0, 1). Default 0.99 (the paper's).
      eps: added to the root; its square is the least second moment in the RMS. In units of the
        gradient, >= 0. Default 1e-8 (the authors' code).
      max_rms: :math:`c`, the RMS above which steps shrink, > 0. Default 1 (the paper's).
      units: the parts that are judged separately, as for ``gs.guard``. Default ``"leaf"`` (the
        paper's). For stacked layers use ``"layer"``, or one exploding layer slows all of them.
      weight_decay: :math:`\lambda`, a number >= 0 or a schedule. Default 0; any other value makes
        ``update`` need ``params``.
      mask: tree of bools, or a function from parameters to one: which leaves to decay.
      mu_dtype: dtype in which ``mu`` is stored. Default float32 (wider for wider parameters).
      nu_dtype: the same for ``nu``.
      axis_name: as for ``gs.guard``. Default ``None``, which is right under ``jit``.

    Returns:
      A ``GradientTransformationExtraArgs`` with a ``ScaleByClippedAdamState``; updates have the
      structure and the dtypes of the gradients. An entry that is not finite, or above
      ``2**62``, leaves its statistics as they are.

    Raises:
      ValueError: if a number is out of its range, or a kind of units is unknown.
      TypeError: if units are of the wrong kind.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradstable as gs
      >>> tx = gs.moments.scale_by_clipped_adam()
      >>> state = tx.init(jnp.ones(2))
      >>> _, state = tx.update(jnp.array([1.0, 1.0]), state)
      >>> updates, state = tx.update(jnp.array([1000.0, 1000.0]), state)
      >>> [round(x, 2) for x in (*updates.tolist(), state.rms.item())]
      [0.53, 0.53, 1.41]

    Source:
      Wortsman et al., "Stable and low-precision training for large-scale vision-language
      models", 2023, arXiv:2304.13013; the RMS after Shazeer, Stern, "Adafactor", 2018,
      arXiv:1804.04235.
    """
    check_decays(b1=b1, b2=b2)
    check_number("eps", eps, at_least=0.0)
    check_number("max_rms", max_rms, above=0.0)
    check_weight_decay("weight_decay", weight_decay)
    check_units(units)
    check_axis_name(axis_name)
    inner = moments(
        "scale_by_clipped_adam",
        optax.ScaleByAdamState,
        (Slot("mu", mu_dtype), Slot("nu", nu_dtype, squared=True)),
        lambda count: _debiased(b1, b2, eps, count),
    )

    def init_fn(params: optax.Params) -> ScaleByClippedAdamState:
        start: Any = inner.init(params)
        return ScaleByClippedAdamState(*start, rms=_ones(units, params))

    def update_fn(
        updates: optax.Updates,
        state: optax.OptState,
        params: optax.Params | None = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, ScaleByClippedAdamState]:
        del extra_args
        old = check_state(state, ScaleByClippedAdamState, "scale_by_clipped_adam")
        updates, params = check_updates(updates, params)
        gradients = widen(updates)
        raw, new = inner.update(gradients, optax.ScaleByAdamState(*old[:3]), params)
        moved: Any = new
        decay = decay_weights(decay_at(weight_decay, old.count), mask)
        raw, _ = decay.update(raw, decay.init(raw), params)
        withins = _withins(gradients, units, axis_name)
        leaves, structure = jax.tree.flatten(updates)
        rms = _rms(jax.tree.leaves(gradients), jax.tree.leaves(moved.nu), withins, eps)

        def shrink(g: jax.Array, u: jax.Array, rms: jax.Array, within: Within) -> jax.Array:
            factor = 1.0 / jnp.maximum(1.0, rms / jnp.asarray(max_rms, rms.dtype))
            return (u * within.split.take(factor).astype(u.dtype)).astype(g.dtype)

        shrunk = list(map(shrink, leaves, jax.tree.leaves(raw), rms, withins))
        state = ScaleByClippedAdamState(*moved, rms=jax.tree.unflatten(structure, rms))
        return jax.tree.unflatten(structure, shrunk), state

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def _withins(gradients: Any, units: Units, axis_name: AxisName) -> list[Within]:
    # A unit of one entry exists only where its entry is; every device knows all other units.
    found = withins_of(gradients, units, axis_name)
    return [within if within.entries > 1 else Within(within.dims, 1) for within in found]


def _debiased(b1: ArrayLike, b2: ArrayLike, eps: ArrayLike, count: jax.Array) -> LeafRule:
    first, second = Decay.of(b1, count).debiased(), Decay.of(b2, count).debiased()

    def learn(g: jax.Array, mu: jax.Array, nu: jax.Array) -> tuple[jax.Array, jax.Array]:
        return first.mix(mu, g), second.mix(nu, g * g)

    def direct(_: jax.Array, new: tuple[jax.Array, ...], __: object) -> jax.Array:
        return divide(new[0], jnp.sqrt(new[1]), eps)

    return LeafRule(learn, direct)


def _rms(
    gradients: Sequence[jax.Array],
    nus: Sequence[jax.Array],
    withins: Sequence[Within],
    eps: ArrayLike,
) -> list[jax.Array]:
    """Return the root mean square of each unit of each whole leaf, on every device."""

    def total(g: jax.Array, nu: jax.Array, within: Within) -> jax.Array:
        nu, sound = nu.astype(g.dtype), jnp.abs(g) <= max_squared(g.dtype)
        square = jnp.where(sound, g, jnp.zeros_like(g)) ** 2
        floor = jnp.square(jnp.asarray(eps, g.dtype))
        ratio = square / jnp.maximum(nu, jnp.maximum(floor, jnp.finfo(g.dtype).tiny))
        return within.place(jnp.sum(ratio, axis=within.dims, keepdims=True))

    here = list(map(total, gradients, nus, withins))
    totals = together(here, [within.split for within in withins])
    return [
        root(total / max(within.entries, 1)).astype(jnp.float32)
        for total, within in zip(totals, withins, strict=True)
    ]


def _ones(units: Units, params: Any) -> Any:
    def of_units(axes: tuple[int, ...], param: ArrayLike) -> jax.Array:
        # A reduction, so that the units are sharded the way a reduction shards them.
        zeros = jnp.zeros_like(param, dtype=jnp.float32)
        return 1.0 + jnp.sum(zeros, axis=axes, keepdims=True)

    leaves, structure = jax.tree.flatten(params)
    return jax.tree.unflatten(structure, list(map(of_units, unit_axes(units, params), leaves)))
