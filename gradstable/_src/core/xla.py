"""Forms of an expression that XLA needs, and what it does without them.

| form | without it |
|---|---|
| `once` | the arithmetic of a verdict is repeated in the fusion of every leaf |
| `after` | parameters are copied before a few of them are read: 2 words per parameter |
| `never` | a value that must wait for another does not, or one that must not be shared is |
| `looked_up` | constant factors are merged: `(c x)^2` becomes `c^2 x^2`, and overflows after all |
| `apart` | if two readers convert a narrow array, all of it is written in float32 |
| `cast` | a cast to bfloat16 is written for its second reader: a copy of the parameters |

None of them changes a value. All were measured on the CPU backend of jaxlib 0.10, and each is
covered by a test of words or of temporary memory (`tests/benchmarks`).
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.core
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import DTypeLike

from gradstable._src.core.numerics import rounded


def once(values: jax.Array, norms: jax.Array) -> jax.Array:
    """Return values >= 0 unchanged, but computed only once.

    The arithmetic of a few scalars is cheap, so XLA would repeat it in the fusion of every leaf
    that reads it, which takes time in every step, and even more in compiling a thousand of them.
    XLA does not repeat a reduction, and an optimization barrier is removed before fusion. So each
    number goes through a maximum with something that is below it: no norm is negative, but XLA
    cannot know that. (A NaN is replaced: even a discarded value must not make a derivative NaN.)
    """
    first = norms[:2].reshape(-1, *(1,) * values.ndim)
    below = -jnp.where(first >= 0.0, first, jnp.ones_like(first))
    return jnp.max(jnp.maximum(values[None], below), axis=0)


def never(norm: jax.Array) -> jax.Array:
    """Return ``False``, which XLA cannot know: no norm, and no sum of squares, is -1."""
    return norm == -1.0


def after(norm: jax.Array | None, updates: Any) -> Any:
    """Return updates that cannot be computed before a norm is, and are otherwise the same.

    A training step overwrites the old parameters with new ones. If nothing orders that and a read
    of a few old ones, XLA copies all of them first. Outside ``jit`` nothing is written in place.
    """
    if not isinstance(norm, jax.core.Tracer):
        return updates
    waits = never(norm)
    return jax.tree.map(lambda leaf: jnp.where(waits, jnp.zeros_like(leaf), leaf), updates)


def looked_up(choices: Sequence[float], index: jax.Array, dtype: DTypeLike) -> jax.Array:
    """Return one of several constants, which XLA does not know at compile time."""
    return jnp.asarray(choices, dtype)[index.astype(jnp.int32)]


def apart(array: jax.Array, *others: jax.Array) -> jax.Array:
    """Return an array for one reader to convert: if readers share it, XLA writes the whole result.

    Args:
      array: the array.
      *others: what else this reader reads, which distinguishes it from others of its kind.
    """
    if array.dtype.name in ("float32", "float64"):
        return array
    return lax.optimization_barrier((array, *others))[0]


def cast(x: jax.Array, dtype: DTypeLike) -> jax.Array:
    """Return ``x.astype(dtype)`` in a form that XLA recomputes for each reader.

    Its CPU backend counts a cast to bfloat16 as expensive: with two readers, it writes the result
    to memory. Rounding and moving bits count as cheap.
    """
    by_bits = x.dtype == np.float32 and np.dtype(dtype) == jnp.bfloat16
    return _to_bfloat16(x) if by_bits else x.astype(dtype)


@jax.custom_jvp
def _to_bfloat16(x: jax.Array) -> jax.Array:
    bits = lax.bitcast_convert_type(rounded(x, jnp.bfloat16), jnp.uint32)
    # The bits that distinguish a NaN from an infinity may all be among those that are lost. So a
    # NaN gets one that stays, by a difference, since a select would be expensive again.
    number, of_infinity = bits & np.uint32(0x7FFFFFFF), np.uint32(0x7F800000)
    is_nan = lax.shift_right_logical(of_infinity - number, jnp.uint32(31))
    high = lax.shift_right_logical(bits | (is_nan << np.uint32(22)), jnp.uint32(16))
    return lax.bitcast_convert_type(high.astype(jnp.uint16), jnp.bfloat16)


@_to_bfloat16.defjvp
def _(primals: Any, tangents: Any) -> tuple[jax.Array, jax.Array]:
    return _to_bfloat16(*primals), tangents[0].astype(jnp.bfloat16)
