"""One engine for all moment estimators: it decides dtypes, soundness and structure.

An estimator is defined by what it does to one leaf: ``learn`` makes new statistics from old ones,
and ``direct`` makes an update from the new ones. The order matters: ``direct`` reads exactly what
is kept, so a guard can hold the statistics without a copy (see ``gradstable/_src/hold.py``), and an
unsound entry is discarded once and for all.
"""

import dataclasses
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jax.typing import ArrayLike, DTypeLike

from gradstable._src.core.axis_name import AxisName, check_axis_name
from gradstable._src.core.checks import check_dtype
from gradstable._src.core.layout import Split, splits_of
from gradstable._src.core.numerics import increment, largest_norm_in, saturate, wide
from gradstable._src.core.tree_checks import check_real, check_state, check_updates

# The square of a larger gradient leaves float32 no room.
MAX_SQUARED = 2.0**62


def max_squared(dtype: DTypeLike) -> float:
    """Return the equivalent of ``MAX_SQUARED`` for any compute dtype."""
    return 4.0 * largest_norm_in(dtype)


class Slot(NamedTuple):
    """A statistic that an estimator keeps for every parameter, or one number for each leaf."""

    name: str  # a field of the state
    dtype: DTypeLike | None = None  # default: float32, or wider for wider parameters
    squared: bool = False  # real also where the gradient is complex
    per_leaf: bool = False  # one float32 number for the whole leaf
    coded: bool = False  # integers that only the rule understands
    start: ArrayLike = 0.0


class LeafRule(NamedTuple):
    """What an estimator does to one leaf at one step, in float32 (or wider).

    Attributes:
      learn: ``(g, *old) -> new``: the new statistics, a tuple with one entry per slot. Must be
        finite for any ``|g| <= 2**62``.
      direct: ``(g, new, old) -> update``, where ``new`` is what is kept. Must be zero where there
        is nothing to divide by.
    """

    learn: Callable[..., tuple[jax.Array, ...]]
    direct: Callable[[jax.Array, tuple[jax.Array, ...], tuple[jax.Array, ...]], jax.Array]


def moments(
    factory: str,
    state_type: type[Any],
    slots: tuple[Slot, ...],
    at: Callable[[jax.Array], LeafRule],
    *,
    complex_too: bool = False,
    axis_name: AxisName = None,
) -> optax.GradientTransformationExtraArgs:
    """Turn an estimator into a transform.

    Gradients are cast to float32 (or wider) first and updates to the dtype of the gradients
    last. An entry that is not finite, or above ``2**62`` (its square would make a second moment
    infinite and freeze its weight forever), counts as zero and leaves its statistics as they are.

    Args:
      factory: the public name, for messages.
      state_type: a ``NamedTuple`` with the names of the slots as fields, preceded by ``count`` if
        it counts steps.
      slots: the statistics.
      at: function from the step number (int32, the first is 1; always 1 if steps are not counted)
        to the rule for that step.
      complex_too: whether the rule is right for complex gradients.
      axis_name: as for ``gs.guard``, for estimators that keep numbers for whole leaves: a leaf that
        is unsound on one device counts as unsound on all, and ``learn`` receives ``split``, which
        says how its leaf is split.
    """
    check_axis_name(axis_name)
    for slot in slots:
        if slot.dtype is not None and not slot.coded:
            check_dtype(f"the dtype of {slot.name}", slot.dtype)

    def init_fn(params: optax.Params) -> Any:
        trees = {
            slot.name: jax.tree.map(lambda p, slot=slot: _start(slot, p), params) for slot in slots
        }
        return _state(state_type, jnp.zeros((), jnp.int32), trees)

    update = _Update(factory, state_type, slots, at, complex_too, axis_name)
    return optax.GradientTransformationExtraArgs(init_fn, update)


def under_guard(tx: optax.GradientTransformation) -> optax.GradientTransformation:
    """Return an estimator for use inside a guard, which lets no unsound entry in.

    The estimator then need not look for unsound entries, which saves a select on every statistic.
    A transform that did not come from ``moments`` is returned unchanged.
    """
    if isinstance(tx.update, _Update):
        return tx._replace(update=dataclasses.replace(tx.update, guarded=True))
    return tx


@dataclasses.dataclass(frozen=True, eq=False)
class _Update:
    """The update function of an estimator, which knows what it is made of."""

    factory: str
    state_type: type[Any]
    slots: tuple[Slot, ...]
    at: Callable[[jax.Array], LeafRule]
    complex_too: bool
    axis_name: AxisName
    guarded: bool = False

    def __call__(
        self,
        updates: optax.Updates,
        state: optax.OptState,
        params: optax.Params | None = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, Any]:
        del extra_args
        old: Any = check_state(state, self.state_type, self.factory)
        updates, params = check_updates(updates, params)
        if not self.complex_too:
            check_real(updates, self.factory)
        before = jnp.asarray(old.count if _counts(self.state_type) else 0, jnp.int32)
        count = increment(jnp.maximum(before, 0))  # a count set from outside can be negative
        rule = self.at(count)

        def move(split: Split, g: jax.Array, *stored: jax.Array) -> _Moved:
            return _move(rule, self.slots, split, g, stored, guarded=self.guarded)

        leaves, structure = jax.tree.flatten(updates)
        stored = (structure.flatten_up_to(getattr(old, slot.name)) for slot in self.slots)
        per_leaf = any(slot.per_leaf for slot in self.slots)
        splits = splits_of(updates, self.axis_name, reduces=per_leaf)
        moved = list(map(move, splits, leaves, *stored))

        def tree(of_leaves: Iterable[jax.Array]) -> Any:
            return jax.tree.unflatten(structure, list(of_leaves))

        new = {
            slot.name: tree(each.stored[index] for each in moved)
            for index, slot in enumerate(self.slots)
        }
        return tree(each.update for each in moved), _state(self.state_type, count, new)


def _counts(state_type: type[Any]) -> bool:
    # Some states shared with optax have no count.
    return "count" in state_type._fields


def _state(state_type: type[Any], count: jax.Array, trees: dict[str, Any]) -> Any:
    return state_type(count=count, **trees) if _counts(state_type) else state_type(**trees)


class _Moved(NamedTuple):
    update: jax.Array
    stored: tuple[jax.Array, ...]


def _move(
    rule: LeafRule,
    slots: tuple[Slot, ...],
    split: Split,
    g: jax.Array,
    stored: tuple[jax.Array, ...],
    *,
    guarded: bool,
) -> _Moved:
    x = _in_float32(g) if any(slot.coded for slot in slots) else g.astype(wide(g.dtype))
    old = tuple(
        leaf.astype(_compute_dtype(slot, x.dtype)) for slot, leaf in zip(slots, stored, strict=True)
    )
    learn = partial(rule.learn, split=split) if split.names else rule.learn
    if guarded:
        new = learn(x, *old)
    else:
        pairs = zip(slots, stored, strict=True)
        squares = (leaf.dtype for slot, leaf in pairs if slot.squared)
        sound = jnp.abs(x) <= min(map(max_squared, (x.dtype, *squares)))
        x = jnp.where(sound, x, jnp.zeros_like(x))
        learned = learn(x, *old)
        # Select here, so that everything below reads what is kept.
        new = tuple(
            jnp.where(_all(sound, split) if slot.per_leaf else sound, after, before)
            for slot, after, before in zip(slots, learned, old, strict=True)
        )
    update = rule.direct(x, new, old)
    kept = (_store(after, leaf.dtype) for after, leaf in zip(new, stored, strict=True))
    return _Moved(_store(update, g.dtype), tuple(kept))


def _in_float32(g: jax.Array) -> jax.Array:
    """Return a gradient in float32, where a larger entry of a wider one becomes unsound."""
    if g.dtype.itemsize <= 4:
        return g.astype(jnp.float32)
    return jnp.clip(g, -2.0 * MAX_SQUARED, 2.0 * MAX_SQUARED).astype(jnp.float32)


def _all(sound: jax.Array, split: Split) -> jax.Array:
    every = jnp.all(sound)
    return lax.pmin(every.astype(jnp.int32), split.names) > 0 if split.names else every


def _start(slot: Slot, param: ArrayLike) -> jax.Array:
    dtype = _compute_dtype(slot, wide(jnp.result_type(param)))
    if slot.per_leaf:
        return jnp.full((), slot.start, dtype)
    chosen = dtype if slot.dtype is None else slot.dtype
    return jnp.full_like(param, jnp.asarray(slot.start, chosen), dtype=chosen)


def _compute_dtype(slot: Slot, dtype: DTypeLike) -> DTypeLike:
    if slot.coded and slot.dtype is not None:
        return slot.dtype
    return jnp.finfo(dtype).dtype if slot.squared or slot.per_leaf else dtype


def _store(value: jax.Array, dtype: DTypeLike) -> jax.Array:
    """Cast to a dtype; values that float16 cannot hold become its largest number."""
    if value.dtype == dtype or jnp.iscomplexobj(value):
        return value.astype(dtype)
    return saturate(value, dtype)
