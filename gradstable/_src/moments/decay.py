"""Decay rates in float32, whatever type they were given in, and without losing digits."""

import math
from typing import NamedTuple

import jax
import jax.core
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from gradstable._src.core.checks import check_number
from gradstable._src.core.numerics import is_low_precision

# A decay rate that rounds to 1 (0.999 in bfloat16) would leave a second moment of zero.
_MAX_DECAY = 1.0 - 2.0**-20
_ROUNDED = (
    "In bfloat16 0.999 rounds to 1: pass hyperparam_dtype=jnp.float32 to optax.inject_hyperparams"
)


def check_decays(**rates: ArrayLike) -> None:
    """Raise unless every concrete rate, passed by name, lies in [0, 1)."""
    for name, rate in rates.items():
        check_number(name, rate, at_least=0.0, below=1.0, hint=_ROUNDED if _rounded(rate) else "")


def _rounded(rate: ArrayLike) -> bool:
    """Whether a concrete rate might be 1 only because its dtype is narrow."""
    array = isinstance(rate, (jax.Array, np.ndarray, np.generic))
    if isinstance(rate, jax.core.Tracer) or not array or rate.ndim:
        return False
    return is_low_precision(rate.dtype) and float(rate) == 1.0


class Decay(NamedTuple):
    """A decay rate ``b`` at one step ``t``, as float32 scalars.

    ``1 - b`` and ``1 - b**t`` are computed from the rate as it was passed in: in float32 the
    difference 1 - 0.999 loses four digits.
    """

    keep: jax.Array  # b
    take: jax.Array  # 1 - b
    corrects: jax.Array  # 1 - b**t
    next_corrects: jax.Array  # 1 - b**(t + 1)

    @classmethod
    def of(cls, rate: ArrayLike, count: jax.Array) -> "Decay":
        """Return the rate at step ``count`` (the first step is 1)."""
        t = count.astype(jnp.float32)
        if isinstance(rate, (int, float)):
            keep, take = jnp.float32(rate), jnp.float32(1.0 - rate)
            log = jnp.float32(math.log(rate) if rate else -math.inf)
        else:
            keep = jnp.minimum(jnp.asarray(rate, jnp.float32), _MAX_DECAY)
            take, log = 1.0 - keep, jnp.log(keep)
        return cls(keep, take, -jnp.expm1(t * log), -jnp.expm1((t + 1.0) * log))

    def mix(self, old: jax.Array, new: jax.Array) -> jax.Array:
        """Return the moving average ``b * old + (1 - b) * new``, in the dtype of ``old``."""
        return self.keep.astype(old.dtype) * old + self.take.astype(old.dtype) * new

    def debiased(self) -> "Decay":
        """Return the rate ``b (1 - b**(t - 1)) / (1 - b**t)``, of an average without bias."""
        take = jnp.minimum(self.take / self.corrects, 1.0)
        return self._replace(keep=1.0 - take, take=take)

    def correct(self, average: jax.Array) -> jax.Array:
        """Remove the bias toward zero from a moving average that started at zero."""
        return average / self.corrects.astype(average.dtype)
