"""Bring the singular values of matrices close to 1 without a decomposition."""

import math
import string
from collections.abc import Callable, Sequence
from typing import Any, Literal, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec
from jax.typing import ArrayLike, DTypeLike

from gradstable._src.core.checks import check_choice, check_number, check_size
from gradstable._src.core.explicit import is_split, laid_out
from gradstable._src.moments.matrices import Axes

Preconditioning: TypeAlias = Literal["frobenius", "spectral", "aol", "schatten"]
# Three numbers for all steps, one triple per step, or the name of a known set.
Coefficients: TypeAlias = Sequence[Any] | ArrayLike | str

# Chosen for the largest slope at zero, not for convergence: after five steps singular values
# lie anywhere in [0.68, 1.14] (Jordan, 2024).
STANDARD = (3.4445, -4.7750, 2.0315)
_KNOWN: dict[str, Any] = {
    "standard": STANDARD,
    # One triple per step; these converge (Ahn et al., "Dion", 2025, arXiv:2504.05295).
    "dion": (
        (4.0848, -6.8946, 2.9270),
        (3.9505, -6.3029, 2.6377),
        (3.7418, -5.5913, 2.3037),
        (2.8769, -3.1427, 1.2046),
        (2.8366, -3.0525, 1.2012),
    ),
}


def coefficients(ns_coeffs: Coefficients, ns_steps: int) -> list[Any]:
    """Return the three coefficients of every step.

    Raises:
      TypeError: if ``ns_steps`` is not an integer, or a coefficient is not a number.
      ValueError: if there are not three coefficients per step, or a name is unknown.
    """
    check_size("ns_steps", ns_steps, at_least=1)
    if isinstance(ns_coeffs, str):
        check_choice("ns_coeffs", ns_coeffs, tuple(_KNOWN))
    given: Any = _KNOWN[ns_coeffs] if isinstance(ns_coeffs, str) else ns_coeffs
    shape = np.shape(given)
    if len(shape) not in (1, 2) or shape[-1] != 3 or not shape[0]:
        msg = f"ns_coeffs must be three numbers, or three for each step, got shape {shape}"
        raise ValueError(msg)
    rows = list(given) if len(shape) == 2 else [given] * ns_steps
    for row in rows:
        for number in row:
            check_number("ns_coeffs", number)
    return rows


def orthogonalize(
    m: jax.Array,
    axes: Axes,
    *,
    coeffs: Sequence[Any],
    eps: ArrayLike,
    compute_dtype: DTypeLike,
    preconditioning: Preconditioning = "frobenius",
) -> jax.Array:
    """Return approximately ``U V^T`` for each matrix ``U S V^T``, and zero for zero.

    No axis is merged with another or moved, so a leaf can be sharded along any of them. (Only the
    spectral norm merges axes, those of the small Gram matrix.)
    """
    rows, columns = (math.prod(m.shape[axis] for axis in part) for part in axes[1:])
    short, long = (axes.rows, axes.columns) if rows <= columns else (axes.columns, axes.rows)
    x = _normalize(m, (*short, *long), eps).astype(compute_dtype)

    # Subscripts: one letter per axis; axes of the short side also get a second and a third letter.
    name = string.ascii_lowercase[: m.ndim]
    one, two, three = _letters(name, short), _upper(name, short), _upper(name, short, shift=1)
    batch = _letters(name, axes.batch)
    renamed = name.translate(str.maketrans(one, two))
    square = _sharding(x, axes.batch, 2 * len(short))

    def product(subscripts: str, first: jax.Array, second: jax.Array, out: Any) -> jax.Array:
        return jnp.einsum(subscripts, first, second, out_sharding=out)

    def gram_of(x: jax.Array) -> jax.Array:
        return product(f"{name},{renamed}->{batch}{one}{two}", x, x, square)

    if preconditioning != "frobenius":
        factor = _FACTORS[preconditioning](gram_of(x), len(axes.batch))
        x = product(f"{batch}{one},{name}->{name}", factor, x, _sharding(x, range(m.ndim), 0))
    for row in coeffs:
        a, b, c = (jnp.asarray(number, x.dtype) for number in row)
        gram = gram_of(x)
        squared = product(
            f"{batch}{one}{two},{batch}{two}{three}->{batch}{one}{three}", gram, gram, square
        )
        inner = b * gram + c * squared
        x = a * x + product(
            f"{batch}{one}{two},{renamed}->{name}", inner, x, _sharding(x, range(m.ndim), 0)
        )
    return x.astype(m.dtype)


def _by_spectrum(gram: jax.Array, batch: int) -> jax.Array:
    """Return the inverse of the largest singular value, for every row."""
    side = gram.shape[batch : (gram.ndim + batch) // 2]
    matrices = gram.astype(jnp.float32).reshape(*gram.shape[:batch], math.prod(side), -1)
    largest = jnp.linalg.eigvalsh(matrices)[..., -1]
    return _inverse_root(jnp.broadcast_to(_like(largest, side), gram.shape[: batch + len(side)]))


def _by_rows(gram: jax.Array, batch: int) -> jax.Array:
    """Return factors from row sums that make all singular values at most 1 (AOL)."""
    first = (gram.ndim + batch) // 2
    return _inverse_root(jnp.sum(jnp.abs(gram), axis=tuple(range(first, gram.ndim))))


def _by_schatten(gram: jax.Array, batch: int) -> jax.Array:
    """Return the inverse of the Schatten norm of order 4, for every row."""
    side = gram.shape[batch : (gram.ndim + batch) // 2]
    norm = jnp.sqrt(jnp.sum(gram * gram, axis=tuple(range(batch, gram.ndim))))
    return _inverse_root(jnp.broadcast_to(_like(norm, side), gram.shape[: batch + len(side)]))


_FACTORS: dict[str, Callable[[jax.Array, int], jax.Array]] = {
    "spectral": _by_spectrum,
    "aol": _by_rows,
    "schatten": _by_schatten,
}


def _like(number: jax.Array, side: tuple[int, ...]) -> jax.Array:
    return number.reshape(*number.shape, *(1 for _ in side))


def _inverse_root(square: jax.Array) -> jax.Array:
    alive = square > 0
    return jnp.where(alive, jax.lax.rsqrt(jnp.where(alive, square, 1.0)), 0.0)


def _normalize(m: jax.Array, within: tuple[int, ...], eps: ArrayLike) -> jax.Array:
    """Return ``m / (norm(m) + eps)`` for each matrix; no square overflows or vanishes."""
    largest = jnp.max(jnp.abs(m), axis=within, keepdims=True, initial=0.0)
    known = largest >= jnp.finfo(m.dtype).tiny
    size = jnp.where(known, largest, jnp.ones_like(largest))
    scaled = m / size
    norm = jnp.sqrt(jnp.sum(scaled * scaled, axis=within, keepdims=True))
    unit = scaled / (norm + jnp.asarray(eps, m.dtype) / size)
    return jnp.where(known, unit, jnp.zeros_like(unit))


def _letters(name: str, axes: Sequence[int]) -> str:
    return "".join(name[axis] for axis in axes)


def _upper(name: str, axes: Sequence[int], *, shift: int = 0) -> str:
    first = len(name) * shift
    return "".join(string.ascii_uppercase[first + axis] for axis in axes)


def _sharding(x: jax.Array, kept: Sequence[int], whole: int) -> NamedSharding | None:
    """Return the sharding of a product; ``None`` where nothing is sharded explicitly."""
    if not is_split(x):
        return None
    spec = jax.typeof(x).sharding.spec
    return laid_out(x, PartitionSpec(*(spec[axis] for axis in kept), *([None] * whole)))
