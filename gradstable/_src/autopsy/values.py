"""What is in an array, in a line."""

import math
from typing import Any

import jax.numpy as jnp
import numpy as np


def described(array: Any) -> str:
    """Return dtype, shape, range, and how many entries are 0 or not finite, of an array."""
    dtype, shape = jnp.result_type(array), np.shape(array)
    kind = f"{dtype}[{','.join(map(str, shape))}]"
    if not math.prod(shape):
        return f"{kind}, empty"
    if not (jnp.issubdtype(dtype, np.number) or jnp.issubdtype(dtype, np.bool_)):
        return kind
    is_complex = jnp.iscomplexobj(array)
    entries = np.asarray(array).astype(complex if is_complex else np.float64)
    sizes = np.abs(entries) if is_complex else entries
    finite = sizes[np.isfinite(sizes)]
    parts: list[str] = []
    if finite.size:
        low, high = finite.min() + 0.0, finite.max() + 0.0  # no negative zeros
        parts.append(f"{low:.4g}" if low == high else f"from {low:.4g} to {high:.4g}")
    counts = [(np.isnan(sizes), "NaN"), (np.isinf(sizes), "infinite")]
    if sizes.size > 1 and jnp.issubdtype(dtype, jnp.inexact):
        counts.insert(0, (sizes == 0, "zero"))
    for where, what in counts:
        if where.any():
            parts.append(f"{where.sum():,} {what}")
    return f"{kind}, {', '.join(parts)}"
