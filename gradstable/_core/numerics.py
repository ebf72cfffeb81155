"""Dtypes to compute in, and counters that stop instead of wrapping round."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike


def wide(dtype: DTypeLike) -> np.dtype:
    """Return the dtype to compute in: float32, unless the dtype is wider or complex."""
    kind = np.dtype(dtype)  # jnp.promote_types would refuse under strict promotion
    return kind if kind.itemsize > 4 else np.dtype(np.float32)


def is_inexact(array: jax.Array) -> bool:
    """Whether an array holds floating-point or complex numbers."""
    return jnp.issubdtype(array.dtype, jnp.inexact)


def increment(counter: jax.Array) -> jax.Array:
    """Return an integer counter plus one; it stops at the largest number of its dtype."""
    return jnp.where(counter < jnp.iinfo(counter.dtype).max, counter + 1, counter)


def abs_square(x: jax.Array) -> jax.Array:
    """Return ``|x|**2``, which is real also where ``x`` is complex."""
    return x.real * x.real + x.imag * x.imag if jnp.iscomplexobj(x) else x * x
