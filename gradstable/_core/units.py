"""Units: the parts of a leaf that are judged, centered or scaled alone.

A unit is named by the axes that tell units apart; along all other axes lies what belongs to one
unit. ``Dense`` kernels are ``(in, out)`` and ``Conv`` kernels ``(height, width, in, out)`` in
Flax, so an output row keeps the last axis. (In PyTorch it would be the first, which is why
``optax.contrib``-style code that keeps axis 0 is wrong here.)
"""

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias, cast

import jax
import numpy as np

# A kind by name, or the axes that are kept; for every leaf alike, by a rule on paths, or as a tree.
Kind: TypeAlias = str | tuple[int, ...]
Units: TypeAlias = Kind | Callable[[str, Any], Kind] | Any

KINDS = ("flax", "leaf", "output", "layer", "stacked", "head")
_ATTENTION_INPUTS = ("query", "key", "value")


def unit_axes(units: Units, tree: object) -> tuple[tuple[int, ...], ...]:
    """Return for every leaf the axes *within* a unit, over which a reduction runs.

    Args:
      units: see ``gs.guard``.
      tree: the parameters or gradients.

    Returns:
      A tuple of axes for each leaf, in tree order: sorted and not negative.

    Raises:
      TypeError: if ``units`` is of the wrong kind.
      ValueError: if a kind is unknown, an axis out of range, or the tree another one; the
        message names the leaf.
    """
    flat, _ = jax.tree_util.tree_flatten_with_path(tree)
    paths = [jax.tree_util.keystr(path) for path, _ in flat]
    leaves = [leaf for _, leaf in flat]
    kinds = _kinds(units, paths, leaves, tree)
    return tuple(map(_axes_within, kinds, paths, map(np.shape, leaves)))


def check_units(units: Units) -> None:
    """Refuse at construction what can be known to be wrong without the parameters."""
    if isinstance(units, str) and units not in KINDS:
        raise ValueError(_unknown("units", units))
    if units is None or isinstance(units, (bool, int, float, list, set)):
        msg = (
            f"units must be one of {KINDS}, a tuple of axes that tell units apart, a function "
            f"from (path, leaf) to one of these, or a tree of them like the parameters; got "
            f"{units!r} of type {type(units).__name__}"
        )
        raise TypeError(msg)


def _kinds(units: Units, paths: Sequence[str], leaves: Sequence[Any], tree: object) -> list[Kind]:
    check_units(units)
    if isinstance(units, str) or _is_axes(units):
        return [cast("Kind", units)] * len(paths)
    if callable(units):
        rule = cast("Callable[[str, Any], Kind]", units)
        return [rule(path, leaf) for path, leaf in zip(paths, leaves, strict=True)]
    is_kind: Callable[[object], bool] = lambda node: isinstance(node, str) or _is_axes(node)  # noqa: E731
    kinds, structure = jax.tree.flatten(units, is_leaf=is_kind)
    if structure != jax.tree.structure(tree):
        msg = (
            f"units must be a tree like the parameters, {jax.tree.structure(tree)}, got {structure}"
        )
        raise ValueError(msg)
    return kinds


def _axes_within(kind: Kind, path: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    ndim = len(shape)
    if isinstance(kind, str):
        kept = _kept(kind, path, ndim)
    elif _is_axes(kind):
        kept = kind
    else:
        raise TypeError(_unknown(f"units of the leaf {path}", kind))
    if not all(-ndim <= axis < ndim for axis in kept):
        msg = f"units of the leaf {path} keep the axes {kept}, but it has {ndim} dimensions"
        raise ValueError(msg)
    return tuple(sorted(set(range(ndim)) - {axis % ndim for axis in kept}))


def _kept(kind: str, path: str, ndim: int) -> tuple[int, ...]:
    """Return the axes that tell the units of a leaf apart."""
    if kind not in KINDS:
        raise ValueError(_unknown(f"units of the leaf {path}", kind))
    if kind == "leaf" or ndim == 0:
        return ()
    if kind == "layer":
        return (0,)
    if kind == "stacked":
        return (0, *(axis + 1 for axis in _kept("output", path, ndim - 1)))
    if kind == "head":
        return _heads(path, ndim)
    return _rows(path, ndim, by_shape=kind == "flax")


def _rows(path: str, ndim: int, *, by_shape: bool) -> tuple[int, ...]:
    """Return the axes of output rows; ``by_shape`` takes one dimension too many for a stack."""
    *_, owner, name = ("", "", *_names(path))
    if name == "embedding":
        last, expected = ndim - 2 if ndim > 1 else 0, 2  # a row of its own for every token
        kept = (last,)
    elif name in ("bias", "scale"):
        kept, expected = (), 1
    elif owner in _ATTENTION_INPUTS and name == "kernel" and ndim > 2:
        kept, expected = (ndim - 2, ndim - 1), 3  # (in, heads, head_dim)
    elif owner == "out" and name == "kernel" and ndim > 2:
        kept, expected = (ndim - 1,), 3  # (heads, head_dim, out)
    else:
        # (in, out), or (height, width, in, out). Three dimensions are layers of (in, out), five
        # are layers of the latter: to mix layers is the error that costs most.
        kept = (ndim - 1,) if ndim > 1 else ()
        expected = 4 if ndim > 3 else 2
    stacked = by_shape and ndim > max(expected, 1)
    return tuple(sorted({*range(ndim - expected), *kept})) if stacked else kept


def _heads(path: str, ndim: int) -> tuple[int, ...]:
    """Return the axis of attention heads, after any axes of stacked layers."""
    *_, owner, name = ("", "", *_names(path))
    if ndim < 3 and not (name == "bias" and owner in _ATTENTION_INPUTS and ndim > 1):
        return _rows(path, ndim, by_shape=True)
    # (in, heads, head_dim) and the bias (heads, head_dim), but (heads, head_dim, out).
    axis = ndim - 3 if owner == "out" else ndim - 2
    first = ndim - (2 if name == "bias" else 3)
    return (*range(first), axis)


def _names(path: str) -> list[str]:
    """Return the parts of a path: ``['layers']['mlp'].kernel`` is layers, mlp, kernel."""
    for mark in "[]'\"":
        path = path.replace(mark, ".")
    names = [part for part in path.split(".") if part]
    return names[:-1] if len(names) > 1 and names[-1] in ("value", "raw_value") else names


def _is_axes(node: object) -> bool:
    return (
        isinstance(node, tuple)
        and not hasattr(node, "_fields")
        and all(isinstance(axis, int) and not isinstance(axis, bool) for axis in node)
    )


def _unknown(what: str, kind: object) -> str:
    return f"{what} must be one of {KINDS} or a tuple of axes, got {kind!r}"
