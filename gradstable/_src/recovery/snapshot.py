"""The last good copy: its content, and how to return to it by updates alone."""

from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from gradstable._src.core.act import applied, is_gradient, unmoved
from gradstable._src.core.axis_name import AxisName
from gradstable._src.core.find import Snapshot
from gradstable._src.core.layout import splits_of, together
from gradstable._src.core.ledger import Dropped, Ledger
from gradstable._src.core.names import with_names, without_names
from gradstable._src.core.numerics import is_inexact, is_low_precision, rounded, saturate, wide
from gradstable._src.core.select import own_arrays

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


def take(
    calls: jax.Array,
    params: Any,
    inner_state: Any,
    rule_state: tuple[Any, ...],
    loss_level: jax.Array,
    dtype: DTypeLike | None,
) -> Snapshot:
    """Return a copy, without names; outside ``jit`` it has its own arrays."""
    return own_arrays(
        Snapshot(
            taken_at=calls,
            kept_params=without_names(_narrow(params, dtype), params),
            kept_state=without_names(_narrow(inner_state, dtype), params),
            kept_rules=without_names(rule_state, params),
            loss_level=loss_level,
        )
    )


def state_of(snapshot: Snapshot, now: Any) -> Any:
    """Return the inner state of a copy, with the dtypes and the records of the present one."""

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

    return restore(now, with_names(snapshot.kept_state, now))


def rules_of(snapshot: Snapshot, now: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return the state of the rules in a copy."""
    return with_names(snapshot.kept_rules, now)


def params_of(snapshot: Snapshot, like: Any) -> Any:
    """Return the parameters of a copy in the dtypes of the present ones."""
    kept = with_names(snapshot.kept_params, like)
    return jax.tree.map(lambda p, q: jnp.asarray(q, p.dtype), like, kept)


def equal(params: Any, wanted: Any, axis_name: AxisName) -> jax.Array:
    """Whether all entries of two trees are equal, on all devices (bool scalar)."""
    here = jax.tree.leaves(jax.tree.map(lambda p, q: jnp.any(p != q), params, wanted))
    differ = [leaf.astype(jnp.int32) for leaf in here]
    everywhere = together(differ, splits_of(params, axis_name))
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
        return jnp.where(going, jnp.where(p == q, unmoved(u), way(p, q, u)), u)

    def way(p: jax.Array, q: jax.Array, u: jax.Array) -> jax.Array:
        if jnp.iscomplexobj(p):
            return (q - p).astype(u.dtype)
        dtype = wide(p.dtype)
        difference = _rounded(q.astype(dtype) - p.astype(dtype), u.dtype)
        reached = _rounded(applied(p, difference.astype(u.dtype)), p.dtype) == q.astype(dtype)
        if jnp.finfo(u.dtype).nmant < jnp.finfo(p.dtype).nmant:
            return saturate(difference, u.dtype)  # the rest shrinks every time
        zero_first = (jnp.abs(p) > jnp.abs(q)) & ~reached
        there = jnp.where(zero_first, -p.astype(dtype), difference)
        return saturate(there, u.dtype)

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
