"""The gradient of a function with respect to its inputs, for each sample of a batch."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gradstable._src.core.numerics import wide
from gradstable._src.core.tree_checks import check_floating, leaves_by_path
from gradstable._src.core.types import Tree

# Samples whose largest entry is beyond 2 to plus or minus the first number are squared after a
# shift by the second, as in core/norms.py: for float32 and for float64.
_SHIFTS = {4: (60, 90), 8: (500, 600)}


def input_gradients(name: str, function: Callable[[Tree], jax.Array], inputs: Tree) -> Tree:
    """Return the gradient of every sample's output with respect to its own input.

    The outputs are summed and differentiated together, which is exact if samples do not interact.

    Args:
      name: the name of the function in messages.
      function: a function from a batch of inputs to one number for each sample.
      inputs: a floating-point array, or a tree of them, with the samples along the first axis.

    Raises:
      TypeError: if inputs are not floating-point.
      ValueError: if the function does not return one number for each sample.
    """
    samples = num_samples(inputs)

    def total(batch: Tree) -> jax.Array:
        outputs = jnp.asarray(function(batch))
        if outputs.shape not in ((samples,), (samples, 1)):
            msg = (
                f"{name} must return one number for each of the {samples} samples, an array of "
                f"shape ({samples},) or ({samples}, 1), got {outputs.shape}: do not take their mean"
            )
            raise ValueError(msg)
        return jnp.sum(outputs.astype(wide(outputs.dtype)))

    return jax.grad(total)(inputs)


def num_samples(inputs: Any) -> int:
    """Return the length of the first axis, which all leaves must share."""
    check_floating("inputs", inputs)
    sizes = {path: np.shape(leaf)[:1] for path, leaf in leaves_by_path(inputs).items()}
    if not sizes or len(set(sizes.values())) > 1 or () in sizes.values():
        found = ", ".join(f"inputs{path}: {size}" for path, size in sizes.items())
        msg = f"inputs must have the samples along their first axis, got {found or 'none'}"
        raise ValueError(msg)
    return next(iter(sizes.values()))[0]


def squared_norms(gradients: Any) -> jax.Array:
    """Return the squared norm of each sample, float32 (wider for wider leaves) ``[samples]``."""
    sums = [jnp.sum(leaf * leaf, axis=_within(leaf)) for leaf in _alike(gradients)]
    return sum(sums[1:], sums[0])


def norms(gradients: Any) -> jax.Array:
    """Return the norm of each sample, float32 (wider for wider leaves) ``[samples]``.

    It neither overflows nor underflows, and has a finite gradient everywhere: 0 at zero.
    """
    return _norms(tuple(_alike(gradients)))


def _alike(gradients: Any) -> list[jax.Array]:
    """Return the leaves in the widest dtype to compute in."""
    leaves = jax.tree.leaves(gradients)
    dtype = max((wide(leaf.dtype) for leaf in leaves), key=lambda dtype: dtype.itemsize)
    return [leaf.astype(dtype) for leaf in leaves]


@jax.custom_jvp
def _norms(leaves: tuple[jax.Array, ...]) -> jax.Array:
    shift, unshift = _shift(leaves)
    squares = squared_norms([leaf * _beside(shift, leaf) for leaf in leaves])
    return jnp.sqrt(squares) * unshift


@_norms.defjvp
def _norms_jvp(
    primals: tuple[tuple[jax.Array, ...]], tangents: tuple[tuple[jax.Array, ...]]
) -> tuple[jax.Array, jax.Array]:
    (leaves,), (moves,) = primals, tangents
    shift, _ = _shift(leaves)
    size = _norms(leaves)
    # JAX would use the slope of the square root, which is infinite at zero; this is the unit
    # vector. It is shifted, since XLA multiplies by the reciprocal, which is flushed to 0 for a
    # large divisor.
    divisor = jnp.where(size > 0, size * shift, jnp.ones_like(size))
    units = [leaf * _beside(shift, leaf) / _beside(divisor, leaf) for leaf in leaves]
    terms = [
        jnp.sum(unit * move, axis=_within(move)) for unit, move in zip(units, moves, strict=True)
    ]
    return size, sum(terms[1:], terms[0])


def _shift(leaves: tuple[jax.Array, ...]) -> tuple[jax.Array, jax.Array]:
    """Return, for each sample, a power of two with which squares do not overflow or underflow."""
    magnitudes = [jnp.max(jnp.abs(leaf), axis=_within(leaf), initial=0.0) for leaf in leaves]
    largest = jnp.max(jnp.stack(magnitudes), axis=0)
    beyond, by = _SHIFTS[largest.dtype.itemsize]
    huge, tiny = largest > 2.0**beyond, largest < 2.0**-beyond
    shift = jnp.where(huge, 2.0**-by, jnp.where(tiny, 2.0**by, 1.0)).astype(largest.dtype)
    unshift = jnp.where(huge, 2.0**by, jnp.where(tiny, 2.0**-by, 1.0)).astype(largest.dtype)
    return shift, unshift


def _beside(numbers: jax.Array, leaf: jax.Array) -> jax.Array:
    """Return one number per sample with the dimensions of a leaf."""
    return jnp.expand_dims(numbers, _within(leaf))


def mean(values: jax.Array) -> jax.Array:
    """Return the mean over samples; 0 if there are none."""
    return jnp.sum(values) / max(values.shape[0], 1)


def _within(leaf: jax.Array) -> tuple[int, ...]:
    return tuple(range(1, leaf.ndim))
