"""Transforms that treat every unit separately: dtypes and structure around a leaf function."""

from collections.abc import Callable
from typing import Any

import jax
import optax

from gradstable._src.core.axis_name import AxisName, check_axis_name
from gradstable._src.core.layout import Within, withins_of
from gradstable._src.core.numerics import saturate, wide
from gradstable._src.core.stateless import stateless
from gradstable._src.core.units import Units, check_units

# (leaf in float32 or wider, what lies within a unit, path) -> new leaf.
OfLeaf = Callable[[jax.Array, Within, str], jax.Array]


def by_unit(
    factory: str, units: Units, function: OfLeaf, *, axis_name: AxisName
) -> optax.GradientTransformationExtraArgs:
    """Make a transform from a function of leaves, with results saturated to the dtype's range."""
    check_units(units)
    check_axis_name(axis_name)

    def apply(updates: Any, params: Any) -> Any:
        del params
        flat, structure = jax.tree_util.tree_flatten_with_path(updates)
        withins = withins_of(updates, units, axis_name)
        new = [
            saturate(function(g.astype(wide(g.dtype)), within, jax.tree_util.keystr(path)), g.dtype)
            for (path, g), within in zip(flat, withins, strict=True)
        ]
        return jax.tree.unflatten(structure, new)

    return stateless(factory, apply)
