"""Read a state saved by an older version, whose fields had other names."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from gradstable._src.core.checks import check_transform
from gradstable._src.core.find import Snapshots
from gradstable._src.core.names import MARK, Unnamed, with_names, without_names
from gradstable._src.core.select import own_arrays
from gradstable._src.rules.ring import EMPTY

# Fields since schema 2, and their names in schema 1; with a dot, in a node that no longer exists.
_BEFORE: Mapping[str, tuple[str, ...]] = {
    "wrapped_state": ("inner_state",),
    "calls": ("count", "health.count"),
    **{
        name: (f"health.{name}",)
        for name in (
            "accepted",
            "rejected",
            "clipped",
            "consecutive_rejected",
            "grad_norm",
            "reason",
            "worst_leaf",
            "last_rejected",
        )
    },
    "norm_limit": ("threshold", "health.threshold"),
    "grad_factor": ("health.scale",),
    "last_dropped": ("last",),
    "loss_scale": ("scale",),
    "sound_calls": ("good",),
    "patience_left": ("patience",),
    "step_factor": ("scale",),
    "gradient_sum": ("total",),
    "loss_sum": ("value",),
    "taken_at": ("count",),
    "kept_params": ("params",),
    "kept_state": ("inner_state",),
    "kept_rules": ("rule_state",),
    "rounding_key": ("rng_key",),
    "block_scales": ("scales",),
    "norms_seen": ("count",),
    "steps_seen": ("seen",),
    "losses_seen": ("count",),
    "mean_norm": ("mean",),
    "mean_norms": ("mean", "mu"),
    "rms_norms": ("root_nu",),
    "norm_variance": ("var",),
    "group_of_leaf": ("group",),
    "log_center": ("center",),
    "log_spread": ("spread",),
    "loss_center": ("center",),
    "loss_spread": ("spread",),
    "first_losses": ("first",),
    "last_norms": ("norms",),
    "last_losses": ("losses",),
    "next_place": ("position",),
    "last_numbers": ("values",),
    "moment_weight": ("weight",),
    "moment_decay": ("b2",),
    "warnings": ("total",),
    "at_call": ("step",),
    "of_leaf": ("leaf",),
    "seen_value": ("value",),
    "usual_value": ("usual",),
}
# Our fields that did not exist in schemas 1 to 7: they begin as in a new run.
_ADDED = frozenset(
    {"leaf_key", "leaf_keys", "updated", "unit", "mass", "recurrence", "moves"}
    | {
        "additions",
        "last_far",
        "level",
        "trial",
        "doublings",
        "undone",
        "last_undone",
        "loss_level",
        "parts",
        "outliers",
        "part_rows",
        "consecutive_dropped",
        "slot",
    }
)
_MISSING = object()
# The parts of a copy that are like those next to it.
_CONTENT = ("kept_state", "kept_rules")


def _empty_places(new: dict[str, Any], raw: Any) -> dict[str, Any]:
    """Return a ring with its empty slots marked as such: in schema 1 they were zero."""
    values = np.asarray(new["last_numbers"])
    window = values.shape[-1]
    there = np.arange(window) < np.asarray(raw.get("count", window))
    return {**new, "last_numbers": np.where(there, values, np.float32(EMPTY))}


def _equal_weights(new: dict[str, Any], raw: Any) -> dict[str, Any]:
    """Return a group of micro-batches without weights: each of those kept gets weight 1."""
    if "mass" in raw:
        return new
    kept = np.asarray(new["kept"])
    return {**new, "unit": (kept > 0).astype(np.float32), "mass": kept.astype(np.float32)}


def _unknown(count: str, spread: str) -> Callable[[dict[str, Any], Any], dict[str, Any]]:
    """Return a conversion of empty statistics: they are now marked by a spread of zero."""

    def convert(new: dict[str, Any], _: Any) -> dict[str, Any]:
        value = np.asarray(new[spread])
        return {**new, spread: np.where(np.asarray(new[count]) == 0, np.zeros_like(value), value)}

    return convert


_CONVERTED: Mapping[str, Callable[[dict[str, Any], Any], dict[str, Any]]] = {
    "Ring": _empty_places,
    "LogMadState": _unknown("norms_seen", "log_spread"),
    "AlarmState": _unknown("steps_seen", "log_spread"),
    "AccumulateState": _equal_weights,
}


def upgrade_state(
    saved: Any, tx: optax.GradientTransformation, *, params: optax.Params
) -> optax.OptState:
    """Return the state of a transform from a checkpoint of state schema 1 to 7, or the current one.

    Use it for a checkpoint written by an older version of this package, in which fields of our
    states have other names. Load it *without* a target, to get dictionaries and lists:
    ``flax.serialization.msgpack_restore(data)``, or ``orbax.checkpoint.v1.load(path)``. Save the
    returned state, and later loads need nothing special. To change the transform as well, pass the
    result to ``gs.checkpoints.migrate_state``.

    Args:
      saved: the state as nested dictionaries and lists of arrays.
      tx: the transform that the state belongs to.
      params: the parameters, as for ``tx.init``.

    Returns:
      A state like ``tx.init(params)`` in structure, shapes and dtypes, with the saved values.

    Raises:
      TypeError: if ``tx`` is not a transform.
      ValueError: if a value is missing, or has a different shape or dtype; the message names the
        first one.

    Example:
      >>> import jax.numpy as jnp
      >>> import optax
      >>> import gradstable as gs
      >>> tx = gs.clipping.clip_by(gs.rules.zscore())
      >>> of_rule = {"count": jnp.array(7), "mean": jnp.array(2.0), "var": jnp.array(0.1)}
      >>> new = tx.init(jnp.ones(2))
      >>> saved = {"ledger": new.ledger._asdict(), "rule_state": [of_rule]}
      >>> saved["ledger"]["last_rejection"] = new.ledger.last_rejection._asdict()
      >>> int(gs.checkpoints.upgrade_state(saved, tx, params=jnp.ones(2)).rule_state[0].norms_seen)
      7
    """
    fresh = check_transform("tx", tx).init(params)
    taken = _take(fresh, saved, "saved")
    for (path, new), old in zip(
        jax.tree_util.tree_leaves_with_path(fresh), jax.tree.leaves(taken), strict=True
    ):
        wanted, there = _describe(new), _describe(old)
        if wanted != there:
            where = jax.tree_util.keystr(path)
            msg = f"saved has {there} where {wanted} is expected, at {where} in the state of tx"
            raise ValueError(msg)
    return own_arrays(taken)


def _take(wanted: Any, raw: Any, path: str, *, names: bool = True) -> Any:
    """Return the values that were saved, in the structure of a part of a state.

    ``names``: whether named tuples were saved with the names of their fields, which they have not
    in copies since schema 2. There, fields are found by position.
    """
    if isinstance(wanted, Unnamed):
        there = raw
        if not names:
            there = _at(raw, 0, path)
        elif isinstance(raw, Mapping):
            there = raw.get("unnamed", raw)
        return Unnamed(_take(wanted.unnamed, there, path, names=names))
    if hasattr(wanted, "_fields"):
        return _take_fields(wanted, raw, path, names=names)
    flat, structure = jax.tree_util.tree_flatten_with_path(
        wanted, is_leaf=lambda node: node is not wanted
    )
    if jax.tree_util.treedef_is_leaf(structure):
        return raw
    parts = [
        _take(child, _child(raw, keys[0], path), f"{path}{jax.tree_util.keystr(keys)}", names=names)
        if jax.tree.leaves(child)
        else child
        for keys, child in flat
    ]
    return jax.tree.unflatten(structure, parts)


def _take_fields(wanted: Any, raw: Any, path: str, *, names: bool) -> Any:
    new: dict[str, Any] = {}
    for position, name in enumerate(wanted._fields):
        part = getattr(wanted, name)
        old = _field(raw, name) if names else _entry(raw, position)
        if not jax.tree.leaves(part) or (old is _MISSING and name in _ADDED):
            new[name] = part
        elif old is _MISSING:
            raise ValueError(_not_there(f"{path}.{name}", raw))
        elif name == "snapshots":
            new[name] = _take_copies(wanted, part, old, f"{path}.{name}")
        else:
            new[name] = _take(part, old, f"{path}.{name}", names=names)
    convert = _CONVERTED.get(type(wanted).__name__)
    return type(wanted)(**(new if convert is None else convert(new, raw)))


def _take_copies(state: Any, copies: Snapshots, raw: Any, path: str) -> Snapshots:
    """Return the copies of a rollback, whose parts are like the present ones next to them."""
    if _field(raw, "copies") is not _MISSING:
        named = zip(_CONTENT, (state.wrapped_state, state.rule_state), strict=True)
        likes = [with_names(getattr(copies, name), like) for name, like in named]
        return Snapshots(
            copies=_take(copies.copies, raw["copies"], f"{path}.copies"),
            **_take_content(copies, likes, raw, path),
        )
    # Until schema 7, each copy was on its own.
    one = jax.tree.map(lambda stack: stack[0], copies._replace(copies=()))
    likes = [state.wrapped_state, state.rule_state]
    known, contents = [], []
    for index, copy in enumerate(copies.copies):
        here, where = _at(raw, index, path), f"{path}[{index}]"
        contents.append(_take_content(one, likes, here, where))
        known.append(_take(copy, here, where))
    return Snapshots(copies=tuple(known), **jax.tree.map(_stacked, *contents))


def _take_content(like: Snapshots, likes: Sequence[Any], raw: Any, path: str) -> dict[str, Any]:
    """Return the parameters of a copy, and its parts that are like those of the present."""
    names = "kept_state" not in raw  # schema 1

    def part(name: str, named: Any) -> Unnamed:
        old = _field(raw, name)
        there = old if names else old["unnamed"]
        return without_names(_take(named, there, f"{path}.{name}", names=names), ())

    new = {name: part(name, like) for name, like in zip(_CONTENT, likes, strict=True)}
    kept_params = _take(like.kept_params, _field(raw, "kept_params"), f"{path}.kept_params")
    return {"kept_params": kept_params, **new}


def _stacked(*leaves: Any) -> Any:
    # NumPy keeps the dtype, which is compared later.
    return (jnp if isinstance(leaves[0], jax.Array) else np).stack(leaves)


def _field(raw: Any, name: str) -> Any:
    for candidate in (name, *_BEFORE.get(name, ())):
        found = raw
        for part in candidate.split("."):
            found = found.get(part, _MISSING) if isinstance(found, Mapping) else _MISSING
        if found is not _MISSING:
            return found
    return _MISSING


def _entry(raw: Any, position: int) -> Any:
    return _at(raw, position, "") if position < len(raw) else _MISSING


def _child(raw: Any, key: Any, path: str) -> Any:
    """Return a part of a saved state by its key in the new state."""
    name = getattr(key, "key", getattr(key, "name", getattr(key, "idx", None)))
    if isinstance(name, int):
        return _at(raw, name, path)
    for candidate in (name, str(name).removeprefix(MARK), f"{MARK}{name}"):
        if isinstance(raw, Mapping) and candidate in raw:
            return raw[candidate]
    raise ValueError(_not_there(f"{path}[{name!r}]", raw))


def _at(raw: Any, index: int, path: str) -> Any:
    """Return an entry of a tuple: saved as a list, an array, or a dictionary by number or name."""
    if isinstance(raw, Mapping):
        for key in (str(index), index):
            if key in raw:
                return raw[key]
        values = [*raw.values()]
    else:
        values = [*raw] if isinstance(raw, Sequence) or getattr(raw, "ndim", 0) else []
    if index < len(values):
        return values[index]
    raise ValueError(_not_there(f"{path}[{index}]", raw))


def _not_there(path: str, raw: Any) -> str:
    there = sorted(map(str, raw)) if isinstance(raw, Mapping) else type(raw).__name__
    return (
        f"nothing was saved at {path}, where there is {there}: load the checkpoint without a "
        "target, with the same tx and params as when it was saved"
    )


def _describe(leaf: Any) -> str:
    dtype = getattr(leaf, "dtype", None) or jnp.result_type(leaf)
    return f"{dtype}[{','.join(map(str, np.shape(leaf)))}]"
