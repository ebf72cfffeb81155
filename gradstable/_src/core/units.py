"""Units: the parts of a leaf that are judged, centered or scaled separately.

Units are specified by the axes that tell them apart; the entries along all other axes belong to
one unit. Flax keeps ``Dense`` kernels as ``(in, out)`` and ``Conv`` kernels as ``(height, width,
in, out)``, so an output row keeps the last axis. There is no common convention: of optax's own
transforms, ``optax.adaptive_grad_clip`` keeps the last axis, as here, and ``optax.centralize`` the
first, which is right for ``(out, in)`` as in PyTorch.

Names and shapes often do not say whether a leading axis counts layers: ``(24, d, d)`` can be 24
scanned ``Dense`` layers or one ``Conv`` over 24 positions. Three sources are consulted, in this
order: the bias next to a kernel, whose axes are those of its outputs and its layers; the names
that Flax gives; and the number of dimensions. If all of them leave it open, a leading axis counts
as layers: units that are too small cost little, but in units that mix layers one broken layer
breaks all.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, TypeAlias, cast, get_args

import jax
import numpy as np

# A kind by name, or the axes that are kept: for every leaf alike, by a function of paths, or as a
# tree. The tree type excludes `str`, so that the type checker finds misspelled kinds.
KindName: TypeAlias = Literal["flax", "leaf", "output", "layer", "stacked", "head"]
Kind: TypeAlias = str | tuple[int, ...]
Units: TypeAlias = (
    KindName
    | tuple[int, ...]
    | Callable[[str, Any], Kind]
    | Mapping[Any, Any]
    | list[Any]
    | tuple[Any, ...]
)

KINDS = get_args(KindName)

_Names: TypeAlias = tuple[str, ...]
_Shapes: TypeAlias = Mapping[_Names, tuple[int, ...]]
_ATTENTION_INPUTS = ("query", "key", "value")
_VECTORS = ("bias", "scale")


def unit_axes(units: Units, tree: object) -> tuple[tuple[int, ...], ...]:
    """Return, for every leaf, the axes *within* a unit, to reduce over.

    Args:
      units: see ``gs.guard``.
      tree: the parameters or gradients.

    Returns:
      A tuple of axes for each leaf, in tree order: sorted and not negative.

    Raises:
      TypeError: if ``units`` is of the wrong type.
      ValueError: if a kind is unknown, an axis is out of range, or the tree does not match; the
        message names the leaf.
    """
    flat, _ = jax.tree_util.tree_flatten_with_path(tree)
    paths = [jax.tree_util.keystr(path) for path, _ in flat]
    leaves = [leaf for _, leaf in flat]
    shapes = {leaf_names(path): np.shape(leaf) for path, leaf in zip(paths, leaves, strict=True)}
    kinds = _kinds(units, paths, leaves, tree)
    return tuple(
        _axes_within(kind, path, np.shape(leaf), shapes)
        for kind, path, leaf in zip(kinds, paths, leaves, strict=True)
    )


def check_units(units: Units) -> None:
    """Reject at construction what is known to be wrong without the parameters."""
    if isinstance(units, str) and units not in KINDS:
        raise ValueError(_unknown("units", units))
    looks_like_axes = isinstance(units, list) and all(isinstance(axis, int) for axis in units)
    if units is None or isinstance(units, (bool, int, float, set)) or looks_like_axes:
        msg = (
            f"units must be one of {KINDS}, a tuple of axes that tell units apart, a function "
            f"from (path, leaf) to one of these, or a tree of them like the parameters, got "
            f"{units!r} of type {type(units).__name__}"
        )
        raise TypeError(msg)


def leaf_names(path: str) -> tuple[str, ...]:
    """Return the parts of a path: ``['layers'][0].kernel`` is layers, 0, kernel.

    The ``.value`` after NNX variables is left out.
    """
    for mark in "[]'\"":
        path = path.replace(mark, ".")
    names = tuple(part for part in path.split(".") if part)
    return names[:-1] if len(names) > 1 and names[-1] in ("value", "raw_value") else names


def is_vector(path: str, ndim: int) -> bool:
    """Whether a leaf is a vector for each layer, such as a bias or a scale, and not a matrix."""
    return ndim < 2 or leaf_names(path)[-1:] in [(name,) for name in _VECTORS]


def _kinds(units: Units, paths: Sequence[str], leaves: Sequence[Any], tree: object) -> list[Kind]:
    check_units(units)
    if isinstance(units, str) or _is_axes(units):
        return [cast("Kind", units)] * len(paths)
    if callable(units):
        return [units(path, leaf) for path, leaf in zip(paths, leaves, strict=True)]
    is_kind: Callable[[object], bool] = lambda node: isinstance(node, str) or _is_axes(node)  # noqa: E731
    kinds, structure = jax.tree.flatten(units, is_leaf=is_kind)
    if structure != jax.tree.structure(tree):
        msg = (
            f"units must be a tree like the parameters, {jax.tree.structure(tree)}, got {structure}"
        )
        raise ValueError(msg)
    return kinds


def _axes_within(kind: Kind, path: str, shape: tuple[int, ...], shapes: _Shapes) -> tuple[int, ...]:
    ndim = len(shape)
    if isinstance(kind, str):
        if kind not in KINDS:
            raise ValueError(_unknown(f"units of the leaf {path}", kind))
        kept = _kept(kind, leaf_names(path), shape, shapes)
    elif _is_axes(kind):
        kept = kind
    else:
        raise TypeError(_unknown(f"units of the leaf {path}", kind))
    if not all(-ndim <= axis < ndim for axis in kept):
        msg = f"units of the leaf {path} keep the axes {kept}, but it has {ndim} dimensions"
        raise ValueError(msg)
    return tuple(sorted(set(range(ndim)) - {axis % ndim for axis in kept}))


def _kept(kind: str, names: _Names, shape: tuple[int, ...], shapes: _Shapes) -> tuple[int, ...]:
    """Return the axes that tell the units of a leaf apart."""
    ndim = len(shape)
    if kind == "leaf" or ndim == 0:
        return ()
    if kind == "layer":
        return (0,)
    if kind == "stacked":
        return (0, *(axis + 1 for axis in _outputs(names, ndim - 1)))
    if kind == "output":
        return _outputs(names, ndim)
    if kind == "head" and (heads := _heads(names, ndim)):
        return heads
    return _flax(names, shape, shapes)


def _outputs(names: _Names, ndim: int) -> tuple[int, ...]:
    """Return the axis of output rows of a leaf that is known not to be a stack."""
    if ndim < 2 or names[-1:] in [(name,) for name in _VECTORS]:
        return ()
    if names[-1:] == ("embedding",):
        return (ndim - 2,)  # one row per token
    if _is_attention_input(names) and ndim > 2:
        return (ndim - 2, ndim - 1)
    return (ndim - 1,)


def _flax(names: _Names, shape: tuple[int, ...], shapes: _Shapes) -> tuple[int, ...]:
    """Return the axes of layers and of output rows, by bias, name and shape."""
    ndim, name = len(shape), names[-1] if names else ""
    if name in _VECTORS:
        return tuple(range(ndim - 1))
    if name == "embedding":
        return tuple(range(ndim - 1)) if ndim > 1 else ()
    if name == "kernel":
        bias = shapes.get((*names[:-1], "bias"))
        if bias and (kept := _as_in_bias(shape, bias)):
            return kept
        if ndim > 2 and _in_attention(names, shapes):
            # (in, heads, head_dim), but (heads, head_dim, out).
            outputs = 2 if _is_attention_input(names) else 1
            return (*range(ndim - 3), *range(ndim - outputs, ndim))
    if ndim < 2:
        return ()
    # Matrices, but four dimensions under this name are nearly always (height, width, in, out).
    core = 4 if name == "kernel" and ndim > 3 else 2
    return (*range(ndim - core), ndim - 1)


def _as_in_bias(kernel: tuple[int, ...], bias: tuple[int, ...]) -> tuple[int, ...]:
    """Return the axes that a kernel shares with its bias: layers first, outputs last.

    If sizes allow several ways, the one with the most layers never mixes them.
    """
    for layers in range(len(bias) - 1, -1, -1):
        outputs = len(bias) - layers
        fits = kernel[:layers] + kernel[-outputs:] == bias
        if fits and len(bias) < len(kernel):
            return (*range(layers), *range(len(kernel) - outputs, len(kernel)))
    return ()


def _in_attention(names: _Names, shapes: _Shapes) -> bool:
    """Whether a kernel is one of an attention layer: ``out`` takes what ``query`` gives.

    Layers with these names can also be a stack of matrices.
    """
    if len(names) < 2 or names[-2] not in (*_ATTENTION_INPUTS, "out"):
        return False
    query, out = (shapes.get((*names[:-2], owner, "kernel"), ()) for owner in ("query", "out"))
    return len(query) == len(out) > 2 and query[-2:] == out[-3:-1]


def _is_attention_input(names: _Names) -> bool:
    return names[-1:] == ("kernel",) and names[-2:-1] in [(name,) for name in _ATTENTION_INPUTS]


def _heads(names: _Names, ndim: int) -> tuple[int, ...]:
    """Return the axis of attention heads, after any layer axes; nothing for other leaves."""
    owner, name = (names[-2], names[-1]) if len(names) > 1 else ("", "")
    if name == "kernel" and ndim > 2 and owner in (*_ATTENTION_INPUTS, "out"):
        return (*range(ndim - 3), ndim - 3 if owner == "out" else ndim - 2)
    if name == "bias" and ndim > 1 and owner in _ATTENTION_INPUTS:
        return tuple(range(ndim - 1))
    return ()


def _is_axes(node: object) -> bool:
    return (
        isinstance(node, tuple)
        and not hasattr(node, "_fields")
        and all(isinstance(axis, int) and not isinstance(axis, bool) for axis in node)
    )


def _unknown(what: str, kind: object) -> str:
    return f"{what} must be one of {KINDS} or a tuple of axes, got {kind!r}"
