"""Random keys in a state: plain numbers, which fit into any checkpoint."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from gradstable._src.core.explicit import created_like
from gradstable._src.core.layout import Split


def is_key(array: jax.Array) -> bool:
    """Whether an array holds keys, and not plain numbers."""
    return jnp.issubdtype(array.dtype, jax.dtypes.prng_key)


def key_numbers(key: int | jax.Array) -> jax.Array:
    """Return the plain numbers of a seed or key, in a new array."""
    return jnp.array(jax.random.key_data(_typed(key)), copy=True)


def key_of(numbers: jax.Array, like: int | jax.Array) -> jax.Array:
    """Return the key with these numbers, of the same kind as ``like``."""
    return jax.random.wrap_key_data(numbers, impl=jax.random.key_impl(_typed(like)))


def draw(
    sampler: Callable[..., jax.Array],
    key: jax.Array,
    like: jax.Array,
    dtype: DTypeLike,
    split: Split,
) -> jax.Array:
    """Return random numbers for every entry of a leaf, the same however it is split."""
    if not split.names:
        return created_like(like, lambda where: sampler(key, like.shape, dtype, out_sharding=where))
    split.dims_of(like.ndim)  # rejects names without dimensions
    return split.take(sampler(key, split.whole_shape(like.shape), dtype))


def _typed(key: int | jax.Array) -> jax.Array:
    array = jnp.asarray(key)
    if is_key(array):
        return array
    return jax.random.wrap_key_data(array) if array.ndim else jax.random.key(key)
