"""Pointwise curves that compress large values: odd, increasing, and defined for any float."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Literal, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

Curve: TypeAlias = Literal["tanh", "softsign", "mu_law", "trust_region"]

_MU = 127.0
_LERP, _WIDTH, _CLAMP = 0.9, 1.5, 2.0
# Above it, log1p(127 a) is log(127) + log(a) to rounding, and 127 a may overflow.
_LARGE = 2.0**60


def softsign(x: jax.Array) -> jax.Array:
    """Return ``2 x / (1 + |x|)``: at most 2 in size, with slope 2 at zero."""
    return 2.0 * (x / (1.0 + jnp.abs(x)))


def mu_law(x: jax.Array) -> jax.Array:
    """Return ``sign(x) log(1 + 127 |x|) / log(128)``: unbounded, with slope 26 at zero."""
    size = jnp.abs(x)
    common = jnp.log1p(_MU * jnp.minimum(size, _LARGE))
    beyond = jnp.log(jnp.maximum(size, _LARGE) / _LARGE)
    return jnp.sign(x) * ((common + beyond) / np.log1p(_MU).item())


def trust_region(x: jax.Array) -> jax.Array:
    """Mix the tanh and a logarithm of ``x / 1.5``: at most 2 in size, with slope 1 at zero."""
    y = x / _WIDTH
    mixed = _LERP * jnp.tanh(y) + (1.0 - _LERP) * jnp.sign(y) * jnp.log1p(jnp.abs(y))
    return jnp.clip(_WIDTH * mixed, -_CLAMP, _CLAMP)


CURVES: Mapping[str, Callable[[jax.Array], jax.Array]] = MappingProxyType(
    {"tanh": jnp.tanh, "softsign": softsign, "mu_law": mu_law, "trust_region": trust_region}
)
