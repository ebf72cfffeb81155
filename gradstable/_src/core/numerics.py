"""Dtypes to compute in, and counters that stop instead of wrapping around."""

import math
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import ArrayLike, DTypeLike

Tree = TypeVar("Tree")

# Its settings are untyped.
_CONFIG: Any = jax.config

# A dtype whose largest number is below this overflows long before float32 does.
_FULL_RANGE = 2.0**100


def wide(dtype: DTypeLike) -> np.dtype:
    """Return the dtype to compute in: float32, unless the dtype is wider or complex."""
    kind = np.dtype(dtype)  # jnp.promote_types would raise under strict promotion
    return kind if kind.itemsize > 4 else np.dtype(np.float32)


def widest(tree: Any) -> np.dtype:
    """Return the dtype for numbers about a tree: float64 if a leaf has it, else float32."""
    dtypes = (getattr(leaf, "dtype", None) for leaf in jax.tree.leaves(tree))
    double = any(dtype in (np.float64, np.complex128) for dtype in dtypes)
    return np.dtype(np.float64 if double else np.float32)


def statistic(value: ArrayLike) -> jax.Array:
    """Return a number about the training: float32, unless it is an array of float64."""
    double = isinstance(value, jax.Array) and value.dtype == np.float64
    return jnp.asarray(value, np.float64 if double else np.float32)


# The standard deviation of a normal variable over its median absolute deviation.
SIGMA_PER_MAD = 1.4826


def largest_norm_in(dtype: DTypeLike) -> float:
    """Return the largest norm whose square leaves room in a second moment of this dtype.

    One more power of two would do; this leaves room to add up 2**8 such squares.
    """
    return 2.0**500 if wide(dtype).name in ("float64", "complex128") else 2.0**60


def smallest_norm_in(dtype: DTypeLike) -> float:
    """Return the norm below which a norm counts as zero: ``1 / norm**2`` would overflow."""
    return 2.0**-500 if np.dtype(dtype) == np.float64 else 2.0**-100


def in_dtype(states: Tree, dtype: DTypeLike) -> Tree:
    """Return statistics with their float32 numbers in the given dtype, that of the parameters."""

    def to(leaf: jax.Array) -> jax.Array:
        return leaf.astype(dtype) if leaf.dtype == np.float32 else leaf

    return jax.tree.map(to, states)


def unlimited(dtype: DTypeLike = np.float32) -> float:
    """Return the limit that no norm exceeds: ``inf``.

    While ``jax_debug_infs`` is on it is the largest number of the dtype, since the absence of a
    limit is not an error.
    """
    return float(jnp.finfo(dtype).max) if looks_for_infinities() else float("inf")


def looks_for_infinities() -> bool:
    """Whether JAX raises when a number becomes infinite."""
    return bool(_CONFIG.jax_debug_infs)


def unknown() -> float:
    """Return the placeholder for an unknown size: NaN, or -1 while ``jax_debug_nans`` is on.

    Neither is ``>= 0``.
    """
    return -1.0 if _CONFIG.jax_debug_nans else float("nan")


def narrowed(number: jax.Array, dtype: DTypeLike) -> jax.Array:
    """Return a number in the dtype of a state; a finite number stays finite."""
    if number.dtype == dtype:
        return number
    return jnp.where(jnp.isfinite(number), saturate(number, dtype), number.astype(dtype))


def widen(tree: Any) -> Any:
    """Return a tree with its arrays in the dtypes to compute in."""

    def convert(leaf: Any) -> Any:
        return leaf.astype(wide(leaf.dtype)) if isinstance(leaf, jax.Array) else leaf

    return jax.tree.map(convert, tree)


def is_zero(number: ArrayLike) -> bool:
    """Whether a hyper-parameter is known to be zero; a traced one is not."""
    return isinstance(number, (int, float)) and number == 0


def float32(number: ArrayLike) -> jax.Array:
    """Return a hyper-parameter as a float32 array."""
    return jnp.asarray(number, jnp.float32)


def is_inexact(array: jax.Array) -> bool:
    """Whether an array holds floating-point or complex numbers."""
    return jnp.issubdtype(array.dtype, jnp.inexact)


def increment(counter: jax.Array) -> jax.Array:
    """Return an integer counter plus one; it stops at the largest number of its dtype."""
    return jnp.where(counter < jnp.iinfo(counter.dtype).max, counter + 1, counter)


def abs_square(x: jax.Array) -> jax.Array:
    """Return ``|x|**2``, which is real even if ``x`` is complex."""
    return x.real * x.real + x.imag * x.imag if jnp.iscomplexobj(x) else x * x


def root(x: jax.Array) -> jax.Array:
    """Return the square root of a number >= 0, whose derivative at zero is zero, not infinite."""
    above = x > 0.0
    return jnp.where(above, jnp.sqrt(jnp.where(above, x, jnp.ones_like(x))), x)


def power_of_two(x: jax.Array) -> jax.Array:
    """Return the power of two at or below ``|x|``, kept away from overflow.

    Multiplying or dividing by it is exact. It stays within ``[2**-126, 2**124]`` (wider for
    float64), so that a quarter of its inverse is a normal number too.
    """
    info = jnp.finfo(x.dtype)
    bits, exponent = (jnp.int32, 0x7F800000) if info.bits == 32 else (jnp.int64, 0x7FF << 52)
    kept = lax.bitcast_convert_type(x, bits) & jnp.asarray(exponent, bits)
    tiny = float(info.tiny)
    return jnp.clip(lax.bitcast_convert_type(kept, x.dtype), tiny, 0.25 / tiny)


def is_low_precision(dtype: DTypeLike) -> bool:
    """Whether a dtype has fewer bits than float32, and so loses small steps."""
    return jnp.issubdtype(dtype, jnp.floating) and jnp.finfo(dtype).bits < 32


def rounded(x: jax.Array, dtype: DTypeLike) -> jax.Array:
    """Return a float32 array rounded to a narrower dtype, still in float32.

    XLA would remove a cast there and back, since it is allowed to keep excess precision.
    """
    info = jnp.finfo(dtype)
    normal = lax.reduce_precision(x, exponent_bits=info.nexp, mantissa_bits=info.nmant)
    if info.nexp == 8:
        return normal
    # Below the normal numbers the spacing is constant.
    spacing = float(info.smallest_subnormal)
    below = jnp.round(x * (1.0 / spacing)) * spacing
    return jnp.where(jnp.abs(x) < float(info.smallest_normal), below, normal)


def saturate(x: jax.Array, dtype: DTypeLike) -> jax.Array:
    """Cast a real array; a value out of range becomes the largest number (NaN stays NaN)."""
    largest = float(jnp.finfo(dtype).max)
    return jnp.clip(x, -largest, largest).astype(dtype)


def fits(x: jax.Array, dtype: DTypeLike) -> jax.Array:
    """Whether each entry of an array stays finite when it is cast to a floating-point dtype.

    This compares instead of casting and testing: XLA can omit a cast there and back, and would
    then consider a number finite that it later stores as infinite.
    """
    if jnp.iscomplexobj(x):
        part = jnp.finfo(dtype).dtype
        return fits(x.real, part) & fits(x.imag, part)
    if not is_low_precision(dtype):
        return lax.is_finite(x.astype(dtype))
    info = jnp.finfo(dtype)
    # From half a spacing above the largest number on, rounding gives infinity.
    spacing = 2.0 ** (math.frexp(float(info.max))[1] - 1 - info.nmant)
    return jnp.abs(x.astype(wide(x.dtype))) < float(info.max) + spacing / 2


def stored(x: jax.Array, dtype: DTypeLike) -> tuple[jax.Array, jax.Array]:
    """Return an array in the dtype in which it is kept, and which entries are sound in it.

    In a dtype of small range (float16, float8, integers) an overflow only means "large", so it
    becomes the largest number. In one with the range of float32 it is not sound, like NaN.
    """
    if jnp.iscomplexobj(x) or not is_inexact(x):
        return x.astype(dtype), fits(x, dtype) if is_inexact(x) else jnp.ones_like(x, bool)
    if jnp.issubdtype(dtype, jnp.integer):
        info = jnp.iinfo(dtype)
        # The bounds in the dtype of x: the number nearest to the largest int32 can be above it.
        low, high = (np.asarray(bound, x.dtype) for bound in (info.min, info.max))
        top = high if int(high) <= info.max else np.nextafter(high, np.asarray(0, x.dtype))
        sound = ~jnp.isnan(x)
        held = jnp.where(sound, jnp.clip(x, low, top), jnp.zeros_like(x))
        return held.astype(dtype), sound
    if is_low_precision(dtype) and float(jnp.finfo(dtype).max) < _FULL_RANGE:
        return saturate(x.astype(wide(x.dtype)), dtype), ~jnp.isnan(x)
    return x.astype(dtype), fits(x, dtype)
