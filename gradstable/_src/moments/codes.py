"""Both moments of Adam in 16 bits, without scales: one number per entry, read and written alone.

| bits | hold | as |
|---|---|---|
| 10 | the root of the second moment | 7 bits of exponent, from ``2**-63`` on, and 3 of mantissa |
| 6 | the first moment over that root | a sign, and 31 sizes above zero |

The first moment needs no scale of its own: by Cauchy and Schwarz it is never more than a few times
the root of the second. Nor does the root, which has 128 powers of two. So an entry needs nothing
from its neighbors: no maximum of a block, which would need all of them first, and nothing from
other devices.
"""

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import DTypeLike

DTYPE: DTypeLike = jnp.uint16
LARGEST_RATIO = 8.27  # what the largest size stands for; Adam's bound is 7.27

_ROOT_BITS = 20  # mantissa bits of a float32 that a root loses
_ROOT_FIRST = (127 - 63) << 3  # the position of 2**-63 among floats with 3 bits of mantissa
# Sizes are those of floats with 2 bits of mantissa, from 2**-7 on, less 2**-7. So they are evenly
# spaced near zero and a fourth to an eighth of themselves apart above, and zero is one of them.
_SIZE_BITS = 21
_SIZE_START = 2.0**-7
_SIZE_FIRST = (127 - 7) << 2
_SIZE_LAST = _SIZE_FIRST + 31
_SIZE_UNIT = LARGEST_RATIO / (1.75 - _SIZE_START)
_SIGN = 1 << 5


def encode(mu: jax.Array, root: jax.Array, bits: jax.Array) -> jax.Array:
    """Return the codes of two moments: each becomes one of the two numbers next to it, by its bits.

    On average they are what they were, up to the largest ratio, where the first moment saturates.

    Args:
      mu: first moment, float32.
      root: root of the second moment, float32, at most ``2**64``.
      bits: 32 bits for each, evenly distributed; see ``spread_bits``.
    """
    above = (bits >> (32 - _ROOT_BITS)).astype(jnp.int32)
    place = (lax.bitcast_convert_type(root, jnp.int32) + above) >> _ROOT_BITS
    # No root is above the last, and XLA's CPU backend does not vectorize a clamp.
    place = jnp.maximum(place, _ROOT_FIRST)
    # Over the root as it will be read, so that its rounding does not change the first moment.
    kept = lax.bitcast_convert_type(place << _ROOT_BITS, jnp.float32)
    size = jnp.abs(mu) * (1.0 / _SIZE_UNIT) / kept + _SIZE_START
    above = (bits & (2**_SIZE_BITS - 1)).astype(jnp.int32)
    step = (lax.bitcast_convert_type(size, jnp.int32) + above) >> _SIZE_BITS
    step = jnp.minimum(step, _SIZE_LAST) - _SIZE_FIRST
    sign = ((lax.bitcast_convert_type(mu, jnp.uint32) >> 26) & _SIGN).astype(jnp.int32)
    return (((place - _ROOT_FIRST) << 6) | sign | step).astype(DTYPE)


def decode(codes: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return the ratio of the first moment to the root of the second, and this root, in float32.

    The root is at least ``2**-63``, also where there has been no gradient yet.
    """
    number = codes.astype(jnp.int32)
    root = lax.bitcast_convert_type(((number >> 6) + _ROOT_FIRST) << _ROOT_BITS, jnp.float32)
    step = (number & (_SIGN - 1)) + _SIZE_FIRST
    size = lax.bitcast_convert_type(step << _SIZE_BITS, jnp.float32) - _SIZE_START
    # The sign goes into the first bit.
    bits = lax.bitcast_convert_type(size * _SIZE_UNIT, jnp.int32) | ((number & _SIGN) << 26)
    return lax.bitcast_convert_type(bits, jnp.float32), root
