"""One loss for all devices, so that all make the same decision."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from gradstable._src.core.axis_name import AxisName, all_names
from gradstable._src.core.manual import check_bound, varying


def agreed(extra_args: dict[str, Any], axis_name: AxisName) -> dict[str, Any]:
    """Return the arguments of ``update`` with the same loss, ``value``, on all devices."""
    if axis_name is None or "value" not in extra_args:
        return extra_args
    return {**extra_args, "value": mean_over(extra_args["value"], axis_name)}


def mean_over(value: Any, axis_name: AxisName) -> Any:
    """Return the mean of a number over the devices; leave it to others to reject a non-number."""
    if axis_name is None or not isinstance(value, (jax.Array, np.ndarray, np.number, int, float)):
        return value
    names = all_names(axis_name)
    check_bound(names)
    array = jnp.asarray(value)
    tracked = bool(names) and varying(lax.axis_index(names[0]))
    # In the same order in all processes: they must compile the same program.
    over = tuple(sorted(varying(array))) if tracked else names
    return lax.pmean(array, over) if over else array
