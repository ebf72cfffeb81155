"""The copies of a run: their content, and how to return to the newest by updates alone."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import DTypeLike

from gradstable._src.core.act import applied, is_gradient, unmoved
from gradstable._src.core.axis_name import AxisName
from gradstable._src.core.find import Copy, Snapshots
from gradstable._src.core.layout import Split, splits_of, together
from gradstable._src.core.ledger import Dropped, Ledger
from gradstable._src.core.names import Unnamed, with_names, without_names
from gradstable._src.core.norms import place_of
from gradstable._src.core.numerics import is_inexact, is_low_precision, rounded, saturate, wide
from gradstable._src.core.select import own_arrays, select
from gradstable._src.rules.ring import EMPTY

# The history is kept: a rollback does not restore old records, nor old counts of calls and events
# in the states of wrappers.
_RECORDS = (Ledger, Dropped)
_STAY = frozenset(
    {
        "calls",
        "rows",
        "leaf_rows",
        "part_rows",
        "outliers",
        "left_out",
        "left_out_last",
        "alarms",
        "spikes",
        "returns",
        "damped",
        "resets",
        "overflows",
        "last_overflow",
    }
)


class Content(NamedTuple):
    """What copies are made of, as in ``Snapshots``."""

    kept_params: Unnamed
    kept_state: Unnamed
    kept_rules: Unnamed


# How many leaves are compared in one program.
_AT_ONCE = 32


def content_of(
    params: Any, inner_state: Any, rule_state: tuple[Any, ...], dtype: DTypeLike | None
) -> Content:
    """Return the content of a new copy, without names."""
    return Content(
        kept_params=without_names(_narrow(params, dtype), params),
        kept_state=without_names(_narrow(inner_state, dtype), params),
        kept_rules=without_names(rule_state, params),
    )


def new_snapshots(content: Content, copies: int) -> Snapshots:
    """Return this many copies of a run that has not begun, in arrays of their own."""

    def repeat(leaf: Any) -> jax.Array:
        return jnp.stack([jnp.asarray(leaf)] * copies)

    return own_arrays(
        Snapshots(
            copies=tuple(
                Copy(
                    taken_at=jnp.zeros((), jnp.int32),
                    loss_level=jnp.full((), EMPTY, jnp.float32),
                    slot=jnp.full((), row, jnp.int32),
                )
                for row in range(copies)
            ),
            **jax.tree.map(repeat, content)._asdict(),
        )
    )


def put(snapshots: Snapshots, slot: jax.Array, content: Content) -> Snapshots:
    """Return the copies with this content in one row of the stacks."""

    def write(stack: jax.Array, leaf: Any) -> jax.Array:
        new = jnp.asarray(leaf, stack.dtype)
        return lax.dynamic_update_index_in_dim(stack, new, slot, 0, allow_negative_indices=False)

    stacks = Content(snapshots.kept_params, snapshots.kept_state, snapshots.kept_rules)
    return snapshots._replace(**jax.tree.map(write, stacks, content)._asdict())


def _newest(snapshots: Snapshots, stacks: Unnamed) -> Any:
    """Return the part of the newest copy that is in these stacks."""
    slot = snapshots.copies[0].slot

    def read(stack: jax.Array) -> jax.Array:
        return lax.dynamic_index_in_dim(
            stack, slot, 0, keepdims=False, allow_negative_indices=False
        )

    return jax.tree.map(read, stacks)


def state_of(snapshots: Snapshots, now: Any) -> Any:
    """Return the inner state of the newest copy, with the dtypes and records of the present one."""

    def is_ours(node: Any) -> bool:
        return isinstance(node, _RECORDS) or "calls" in getattr(node, "_fields", ())

    def back(new: Any, saved: Any) -> Any:
        if isinstance(new, _RECORDS):
            return new
        if not is_ours(new):
            return jnp.asarray(saved, new.dtype)
        parts = zip(new._fields, new, saved, strict=True)
        return type(new)(
            *(here if name in _STAY else restore(here, old) for name, here, old in parts)
        )

    def restore(here: Any, saved: Any) -> Any:
        return jax.tree.map(back, here, saved, is_leaf=is_ours)

    return restore(now, with_names(_newest(snapshots, snapshots.kept_state), now))


def rules_of(snapshots: Snapshots, now: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return the state of the rules in the newest copy."""
    return with_names(_newest(snapshots, snapshots.kept_rules), now)


def kept_params_of(snapshots: Snapshots) -> Unnamed:
    """Return the parameters of the newest copy as they are kept."""
    return _newest(snapshots, snapshots.kept_params)


def params_of(snapshots: Snapshots, like: Any) -> Any:
    """Return the parameters of the newest copy in the dtypes of the present ones."""
    kept = with_names(kept_params_of(snapshots), like)
    return jax.tree.map(lambda p, q: jnp.asarray(q, p.dtype), like, kept)


def equal(params: Any, wanted: Any, axis_name: AxisName) -> jax.Array:
    """Whether all entries of two trees are equal, on all devices (bool scalar)."""
    flat, splits = jax.tree_util.tree_leaves_with_path(params), splits_of(params, axis_name)
    kinds: dict[tuple[Any, Split, str], list[jax.Array]] = {}
    for (path, p), q, split in zip(flat, jax.tree.leaves(wanted), splits, strict=True):
        # A leaf of each layer at a time: they are sharded alike, and a program reads them all.
        kinds.setdefault((jax.typeof(p), split, place_of(path)), []).append(lax.ne(p, q))
    groups = [
        (split, functools.reduce(lax.bitwise_or, each[start : start + _AT_ONCE]))
        for (_, split, _), each in kinds.items()
        for start in range(0, len(each), _AT_ONCE)
    ]
    differ = [jnp.any(group).astype(jnp.int32) for _, group in groups]
    everywhere = together(differ, [split for split, _ in groups])
    return jnp.all(jnp.stack([jnp.zeros((), jnp.int32), *everywhere]) == 0)


def lead_back(going: jax.Array, params: Any, wanted: Any, updates: Any) -> Any:
    r"""Return the updates or, if ``going``, updates that take the parameters to the wanted ones.

    ``u = q - p`` is enough wherever ``p + u`` rounds to ``q``: always if ``p`` is between
    ``q / 2`` and ``2 q``. Otherwise the difference is rounded, and this can lose more digits than
    ``q`` has: 1e8 + (0.3 - 1e8) is 0. If ``|p|`` is above ``|q|``, ``u = -p`` then gives an exact
    zero, and the next update is ``q``. If it is not, ``q - p`` leaves an error of one unit in the
    last place, which the next update removes. So two updates are enough; it takes a few more if
    updates have fewer bits than parameters.
    """

    def lead(p: jax.Array, q: jax.Array, u: Any) -> Any:
        if u is None or not is_gradient(u) or not is_inexact(p):  # it never moved
            return u
        return select(going, lax.select_n(lax.eq(p, q), way(p, q, u), unmoved(u)), u)

    def way(p: jax.Array, q: jax.Array, u: jax.Array) -> jax.Array:
        if jnp.iscomplexobj(p):
            return (q - p).astype(u.dtype)
        dtype = wide(p.dtype)
        difference = _rounded(q.astype(dtype) - p.astype(dtype), u.dtype)
        reached = _rounded(applied(p, difference.astype(u.dtype)), p.dtype) == q.astype(dtype)
        if jnp.finfo(u.dtype).nmant < jnp.finfo(p.dtype).nmant:
            return saturate(difference, u.dtype)  # the rest shrinks every time
        zero_first = lax.bitwise_and(lax.gt(lax.abs(p), lax.abs(q)), lax.bitwise_not(reached))
        there = lax.select_n(zero_first, difference, lax.neg(p.astype(dtype)))
        if u.dtype != dtype:
            return saturate(there, u.dtype)
        largest = jnp.finfo(dtype).max
        return lax.clamp(-largest, there, largest)

    return jax.tree.map(lead, params, wanted, updates, is_leaf=lambda leaf: leaf is None)


def _rounded(x: jax.Array, dtype: DTypeLike) -> jax.Array:
    # By an operation that XLA must not omit, whereas it can omit a cast there and back.
    return rounded(x.astype(wide(x.dtype)), dtype) if is_low_precision(dtype) else x


def _narrow(tree: Any, dtype: DTypeLike | None) -> Any:
    """Return a tree with all real leaves wider than ``dtype`` cast to it."""
    if dtype is None:
        return tree

    def narrow(leaf: Any) -> Any:
        array = jnp.asarray(leaf)
        real = jnp.issubdtype(array.dtype, jnp.floating)
        wider = real and array.dtype.itemsize > jnp.dtype(dtype).itemsize
        return saturate(array, dtype) if wider and array.ndim else array

    return jax.tree.map(narrow, tree)
