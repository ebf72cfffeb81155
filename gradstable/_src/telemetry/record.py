"""Record what happens in every step, in ring buffers in the optimizer state."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike, DTypeLike

from gradstable._src.core.agreed import agreed
from gradstable._src.core.axis_name import AxisName, check_axis_name
from gradstable._src.core.checks import check_number, check_size
from gradstable._src.core.equations import as_arrays, as_at_init
from gradstable._src.core.layout import splits_of
from gradstable._src.core.norms import measure
from gradstable._src.core.numerics import float32, increment, unknown
from gradstable._src.core.order import inside
from gradstable._src.core.reach import Reach
from gradstable._src.core.sample import sample_sizes
from gradstable._src.core.scale import UNSCALE, unscale_measure, wrapping
from gradstable._src.core.select import own_arrays
from gradstable._src.core.shown import shown
from gradstable._src.core.taken import takes
from gradstable._src.core.tree_checks import check_state, check_value
from gradstable._src.core.wrapped import explaining
from gradstable._src.core.xla import after
from gradstable._src.precision.inside import check_one_loss_scale, unscale_inside
from gradstable._src.taps.kinds import Sums
from gradstable._src.telemetry.alarms import watch
from gradstable._src.telemetry.gauges import (
    has_guard,
    last_verdict,
    leaf_rms,
    lr_factor,
    outlying_micro_batch,
    update_ratio,
    worst_rms,
)
from gradstable._src.telemetry.places import Places
from gradstable._src.telemetry.state import RecordState, new_record, pack, put, put_every
from gradstable._src.telemetry.tap_ring import check_taps, keep_taps


@shown
def record(
    inner: optax.GradientTransformation,
    *,
    capacity: int = 128,
    leaf_every: int = 4,
    rms_limit: ArrayLike = 2.3,
    ratio_limit: ArrayLike = 4.0,
    taps: Mapping[str, Sums] | None = None,
    axis_name: AxisName = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Record every step of an optimizer, and warn before the loss does.

    Use it around the whole optimizer, guard included, whenever you may want to know later what
    happened: ``gs.telemetry.Log`` reads it every few steps, in one transfer, and writes it where
    you like. Updates are those of ``inner``, and nothing is ever recompiled.

    Ring buffers of fixed size keep, for each step: the loss (if you pass ``value=loss``), the norm
    of the raw gradient (without the factor of a ``gs.loss_scale``), the guard's threshold, scale
    and reason, the worst leaf, the factor by which back-off and plateaus have lowered the step, and
    two early signs of trouble. The first is

    .. math:: RMS_t = \sqrt{\mathrm{mean}(g^2 / \max(\hat v, \epsilon^2))}

    of the leaf where it is largest, with :math:`\hat v` the bias-corrected second moment of
    ``inner`` (the tree ``nu`` in its state) and :math:`\epsilon = 10^{-8}`. It is about 1 while the
    second moment keeps up; where it lags behind, the update is larger than it should be, and the
    loss spikes 1 to 8 steps later. The second is the update ratio, the norm of the last update over
    the norm of the parameters. Both are estimated from evenly spaced entries of each leaf (one in
    128, at least 256): reading all entries would cost several passes over memory. Every
    ``leaf_every`` steps, the gradient norm of each leaf is also kept, which shows where growth
    began.

    An alarm is raised when one of them exceeds a multiple of its usual value and is more than six
    robust standard deviations of its logarithm above it. For ``RMS_t`` of a leaf with enough
    entries, exceeding the limit itself can replace the latter. ``gs.explain`` names alarms.

    Cost: a guard has already measured the gradient, and XLA merges the two measurements; the rest
    is below 0.2 words per parameter. Without a guard, the gradient is read once more.

    Args:
      inner: any optax transform; usually a guard.
      capacity: number of steps to keep, a multiple of ``leaf_every``. Default 128: read the log at
        least that often. Each step costs 52 bytes, and each ``leaf_every``-th step 4 more bytes per
        leaf.
      leaf_every: interval, in steps, at which the norms of single leaves are kept, >= 1. Default 4.
      rms_limit: multiple of its usual value at which ``RMS_t`` triggers a warning, > 1. Default
        2.3, the limit of Wortsman et al. for a value that is usually 1.
      ratio_limit: the same for the update ratio, > 1. Default 4.
      taps: the shapes of taps to keep, from ``gs.taps.shapes``. The update then takes ``taps=``,
        and keeps those of steps that measure, at most every ``leaf_every`` steps. Each row costs 60
        bytes per tap and layer. Default: none.
      axis_name: as for ``gs.guard``. Each device then samples its own part, so create the state
        inside ``jax.shard_map`` too.

    Returns:
      A ``GradientTransformationExtraArgs`` with a ``RecordState``. ``RMS_t`` is unknown if
      ``inner`` has no tree ``nu`` like the gradient, and the update ratio if you do not pass
      ``params``. (In Adamax ``nu`` is not a second moment: its ``RMS_t`` is meaningless.)

    Raises:
      TypeError: if ``inner`` is not a transform, or ``taps`` are not taps.
      ValueError: if a number is out of its range, the loss is not a scalar, or the taps of an
        update are not those it was built for; in ``init``, if ``inner`` contains several loss
        scales.

    Example:
      >>> import jax.numpy as jnp
      >>> import optax
      >>> import gradstable as gs
      >>> params = {"w": jnp.ones(3)}
      >>> tx = gs.record(gs.guard(optax.adam(1e-3)))
      >>> state = tx.init(params)
      >>> for loss in (2.0, 1.5):
      ...     _, state = tx.update({"w": jnp.ones(3)}, state, params, value=loss)
      >>> [row["loss"] for row in gs.telemetry.read_rows(state).steps]
      [2.0, 1.5]

    Source:
      ``RMS_t`` and its limit: Wortsman et al., "Stable and low-precision training for
      large-scale vision-language models", 2023 (arXiv:2304.13013). The rest is ours.
    """
    inner = inside("record", inner)
    _check_sizes(capacity, leaf_every)
    check_axis_name(axis_name)
    limits = _limits(rms_limit=rms_limit, ratio_limit=ratio_limit)
    if taps is not None:
        rows = capacity // leaf_every
        inner = keep_taps(inner, check_taps(taps), rows=rows, every=leaf_every)

    def init_fn(params: optax.Params) -> RecordState:
        inner_state = own_arrays(inner.init(params))
        check_one_loss_scale(inner_state, "record")
        return new_record(params, inner_state, capacity=capacity, leaf_every=leaf_every)

    update = _Update(inner, limits, leaf_every, axis_name)

    def update_fn(
        updates: optax.Updates,
        state: optax.OptState,
        params: optax.Params | None = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, RecordState]:
        return update(updates, state, params, **extra_args)

    return wrapping(inner, init_fn, update_fn)


@dataclasses.dataclass(frozen=True, eq=False)
class _Update:
    """The update function, in the order of a step."""

    inner: optax.GradientTransformationExtraArgs
    limits: tuple[jax.Array, ...]
    leaf_every: int
    axis_name: AxisName
    reach: Reach = dataclasses.field(default_factory=Reach)

    def __call__(
        self,
        updates: optax.Updates,
        state: optax.OptState,
        params: optax.Params | None = None,
        *,
        unscale: ArrayLike | None = None,
        outlying_device: ArrayLike | None = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, RecordState]:
        old = check_state(state, RecordState, "record")
        _check_keeps_taps(self.inner, extra_args)
        extra_args, count = agreed(extra_args, self.axis_name), increment(old.calls)
        passed = extra_args if unscale is None else {**extra_args, UNSCALE: unscale}
        updates = as_arrays(updates)
        inner = self.reach.look(self.inner, updates, old.wrapped_state, params, passed)
        run = inner.update if inner.equations is None else inner.equations.run
        seen = inner.judged
        places = Places.of(seen, old.sampled_params)
        factor = unscale_inside(old.wrapped_state, unscale)
        measured = unscale_measure(measure(seen, axis_name=self.axis_name), factor)
        known = None if params is None else as_at_init(params, updates)
        ratio, sampled_params = update_ratio(old.sampled_params, known, count, self.axis_name)
        given = updates if has_guard(old.wrapped_state) else after(measured.norm, updates)
        with explaining(updates, params):
            new_updates, inner_state = run(given, old.wrapped_state, params)

        verdict, made = last_verdict(old.wrapped_state, inner_state)
        about = (old.second_moment, seen, inner_state, verdict, self.axis_name)
        moment, rms = leaf_rms(*about, made=made, unscale=factor)
        bits, alarms = watch(
            old.alarms,
            (rms := places.spread(rms, unknown()), ratio),
            limits=self.limits,
            sizes=places.spread_sizes(_sampled(seen, self.axis_name)),
            when=made & (verdict["scale"] > 0),
            count=count,
        )
        loss = _loss(extra_args.get("value"), old.rows.dtype)
        parts = _parts(outlying_micro_batch(old.wrapped_state, inner_state), outlying_device)
        row: dict[str, Any] = {"loss": loss, "update_ratio": ratio, "alarms": bits}
        row |= {"grad_norm": measured.norm, "worst_leaf": places.column_of(measured.worst_leaf)}
        row |= {**verdict, **worst_rms(rms), "lr_factor": lr_factor(inner_state)}
        norms = places.spread(measured.leaf_norms, 0.0)
        new_state = RecordState(
            calls=count,
            rows=put(old.rows, pack(row, old.rows.dtype), at=old.calls),
            leaf_rows=put_every(old.leaf_rows, norms, at=old.calls, every=self.leaf_every),
            part_rows=put(old.part_rows, parts, at=old.calls),
            alarms=alarms,
            second_moment=moment,
            leaf_keys=old.leaf_keys,
            sampled_params=sampled_params,
            wrapped_state=inner_state,
        )
        return after(ratio, new_updates), new_state


def _sampled(updates: Any, axis_name: AxisName) -> tuple[int, ...]:
    """Return how many entries of each leaf are sampled across all devices."""
    rows = zip(sample_sizes(updates), splits_of(updates, axis_name), strict=True)
    return tuple(size * split.parts for size, split in rows)


def _parts(micro_batch: jax.Array, device: ArrayLike | None) -> jax.Array:
    """Return the parts that stand out, int32 ``[2]``, counted from 1; 0: none."""
    return jnp.stack([micro_batch, jnp.asarray(-1 if device is None else device, jnp.int32)]) + 1


def _check_sizes(capacity: int, leaf_every: int) -> None:
    check_size("leaf_every", leaf_every, at_least=1)
    check_size("capacity", capacity, at_least=1)
    if capacity % leaf_every:
        msg = f"capacity must be a multiple of leaf_every ({leaf_every}), got {capacity}"
        raise ValueError(msg)


def _check_keeps_taps(inner: optax.GradientTransformation, extra_args: dict[str, Any]) -> None:
    if "taps" in extra_args and not takes([inner.update], "taps"):
        msg = (
            "this record was built without taps: pass their shapes, "
            "record(..., taps=gradstable.taps.shapes(loss_fn, ...)), or leave out taps= here"
        )
        raise ValueError(msg)


def _limits(**limits: ArrayLike) -> tuple[jax.Array, ...]:
    for name, limit in limits.items():
        check_number(name, limit, above=1.0)
    return tuple(map(float32, limits.values()))


def _loss(value: ArrayLike | None, dtype: DTypeLike) -> jax.Array | None:
    return None if value is None else check_value(value, "record", dtype)
