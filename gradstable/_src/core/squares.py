"""Sums of squares, plain and shifted by a power of two, in float32 or float64."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import DTypeLike

from gradstable._src.core.in_rows import sum_each
from gradstable._src.core.numerics import abs_square, wide
from gradstable._src.core.xla import apart, looked_up, never


class Range(NamedTuple):
    """The limits of a dtype to sum in, and the shifts for what is outside of them.

    Attributes:
      tiny: a sum of squares from here on is accurate: each square that underflowed is below the
        smallest normal number, so even 2**42 entries lose at most one part in 2**20.
      up: what tiny norms are multiplied by. Then even the smallest number can be squared, and the
        largest of the tiny ones can be squared and summed.
      down: its inverse, for norms whose square overflows.
    """

    tiny: float
    up: float
    down: float


_F32 = Range(2.0**-64, 2.0**90, 2.0**-90)
# A float32 leaf next to float64 ones loses its subnormal entries when it is converted, so the
# second read must begin where these could matter: 2**42 of them have squares below 2**-210.
_F64 = Range(2.0**-180, 2.0**580, 2.0**-580)


class Shift(NamedTuple):
    """The factor for all entries, and whether it shifts up."""

    factor: jax.Array
    is_up: jax.Array

    @classmethod
    def to(cls, huge: jax.Array, dtype: DTypeLike) -> "Shift":
        """Return the shift down for huge norms, else the shift up."""
        return cls(looked_up([range_of(dtype).up, range_of(dtype).down], huge, dtype), ~huge)

    def after(self, sums: jax.Array | None) -> "Shift":
        """Return the same shift, which waits for a sum of squares."""
        if sums is None:
            return self
        zero = jnp.zeros_like(self.factor)
        return self._replace(factor=lax.select(never(sums), zero, self.factor))


def range_of(dtype: DTypeLike) -> Range:
    """Return the limits of a dtype to sum in."""
    return _F64 if np.dtype(dtype) == np.float64 else _F32


def sum_squares(stack: jax.Array, dtype: DTypeLike) -> jax.Array:
    """Return the sum of squares of each array in a stack ``[k, *shape]``; it may overflow."""

    def square(x: jax.Array) -> jax.Array:
        return abs_square(as_wide(x, dtype))

    # For float16, the library for sums on the CPU does not accept the conversion either.
    in_rows = stack.dtype.name not in ("float32", "float64", "bfloat16")
    return sum_each(apart(stack), square, in_rows=in_rows)


def as_wide(x: jax.Array, dtype: DTypeLike) -> jax.Array:
    """Return a real array in a dtype to sum in, a complex one in parts of that dtype."""
    if not jnp.iscomplexobj(x):
        return x.astype(dtype)
    return x.astype(np.complex128) if np.dtype(dtype) == np.float64 else x


@partial(jax.jit, static_argnames="large")  # traced once for all leaves of a shape
def sum_shifted_squares(stack: jax.Array, shift: Shift, *, large: bool) -> jax.Array:
    """Return the same for entries times a factor, with subnormal ones read by their bits.

    Args:
      stack: arrays ``[k, *shape]``.
      shift: the factor.
      large: whether there is no memory for sums of short rows.
    """

    def square(x: jax.Array) -> jax.Array:
        if jnp.iscomplexobj(x):
            return square(x.real) + square(x.imag)
        shifted = _shifted(x, shift.factor, shift.is_up)
        return shifted * shifted

    return sum_each(stack, square, in_rows=True, large=large)


def put_down(norms: jax.Array) -> jax.Array:
    """Undo the shift up of norms; a subnormal result is assembled from its bits."""
    info, bits = _bits_of(norms.dtype)
    up, down = range_of(norms.dtype).up, range_of(norms.dtype).down
    number = jnp.round(norms * (down / float(info.smallest_subnormal))).astype(bits)
    subnormal = lax.bitcast_convert_type(number, norms.dtype)
    return jnp.where(norms < float(info.tiny) * up, subnormal, norms * down)


def _shifted(x: jax.Array, factor: jax.Array, is_up: jax.Array) -> jax.Array:
    values = x.astype(wide(x.dtype))
    shifted = values.astype(factor.dtype) * factor
    info, bits = _bits_of(values.dtype)
    if float(jnp.finfo(x.dtype).smallest_subnormal) >= float(info.tiny):
        return shifted  # narrow numbers that are all normal in float32
    per_bit = float(info.smallest_subnormal) * range_of(factor.dtype).up
    number = lax.bitcast_convert_type(values, bits) & np.asarray(np.iinfo(bits).max, bits)
    subnormal = number.astype(factor.dtype) * jnp.where(is_up, per_bit, 0.0).astype(factor.dtype)
    least = np.asarray(1 << info.nmant, bits)  # the bits of the smallest normal number
    return jnp.where(number < least, subnormal, shifted)


def _bits_of(dtype: DTypeLike) -> tuple[Any, np.dtype]:
    return jnp.finfo(dtype), np.dtype(np.int64 if np.dtype(dtype).itemsize == 8 else np.int32)
