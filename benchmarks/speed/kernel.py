"""A guarded AdamW step as one hand-written kernel, to see what XLA leaves on the table.

Written in Pallas for Triton: each program reads a block of every array once and writes it in place.
The verdict of a guard comes in as two numbers, so that a rejected step writes what it read. The
arithmetic of an entry is a function of its own, which XLA can also run on whole arrays: that is
the oracle. An optax transform cannot use such a kernel, since its updates would have to be written
and read again before they reach the parameters, which costs more than XLA loses.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton

from gradstable._src.core.chance import bits_at
from gradstable._src.moments.codes import decode, encode

B1, B2, EPS = 0.9, 0.999, 1e-8
BLOCK = 1024
_LARGEST = float(jnp.finfo(jnp.float32).max)


class Scalars(NamedTuple):
    """What all entries of a step share, float32."""

    accept: jax.Array  # 1 or 0
    scale: jax.Array  # of the gradient
    of_mu: jax.Array  # 1 / (1 - b1**t)
    of_root: jax.Array  # 1 / sqrt(1 - b2**t)
    rate: jax.Array
    decay: jax.Array
    count: jax.Array  # the bits of an int32

    @classmethod
    def at(
        cls, count: jax.Array, accept: jax.Array, scale: jax.Array, *, rate: float, decay: float
    ) -> "Scalars":
        """Return the scalars of a step; the first is 1."""
        t = count.astype(jnp.float32)
        return cls(
            accept.astype(jnp.float32),
            scale.astype(jnp.float32),
            1.0 / (1.0 - B1**t),
            jax.lax.rsqrt(1.0 - B2**t),
            jnp.float32(rate),
            jnp.float32(decay),
            jax.lax.bitcast_convert_type(count, jnp.float32),
        )


# From the scalars, the places of the entries, what is read and what is written: the new of these.
Step: TypeAlias = Callable[..., tuple[jax.Array, ...]]


def adamw(
    s: Scalars,
    place: jax.Array,
    gradient: jax.Array,
    param: jax.Array,
    mu: jax.Array,
    nu: jax.Array,
) -> tuple[jax.Array, ...]:
    """Return the new parameters and both moments."""
    del place
    g = gradient.astype(jnp.float32) * s.scale
    new_mu = _kept(s, B1 * mu + (1.0 - B1) * g, mu)
    new_nu = _kept(s, B2 * nu + (1.0 - B2) * g * g, nu)
    update = new_mu * s.of_mu / (jnp.sqrt(new_nu) * s.of_root + EPS)
    return _applied(s, update, param), new_mu, new_nu


def adamw_8bit(
    s: Scalars, place: jax.Array, gradient: jax.Array, param: jax.Array, codes: jax.Array
) -> tuple[jax.Array, ...]:
    """Return the new parameters and moments in 16 bits."""
    g = gradient.astype(jnp.float32) * s.scale
    ratio, root = decode(codes)
    mu = B1 * (ratio * root) + (1.0 - B1) * g
    root = jnp.sqrt(B2 * root * root + (1.0 - B2) * g * g)
    count = jax.lax.bitcast_convert_type(s.count, jnp.int32)
    new = encode(mu, root, bits_at(count, place))
    new = jnp.where(s.accept > 0.0, new, codes)
    ratio, root = decode(new)
    return _applied(s, ratio * root * s.of_mu / (root * s.of_root + EPS), param), new


def by_kernel(
    step: Step,
    scalars: Scalars,
    gradient: jax.Array,
    write: Sequence[jax.Array],
    *,
    block: int = BLOCK,
    interpret: bool = False,
) -> list[jax.Array]:
    """Return the new values of the arrays in ``write``, in their memory where they are donated."""
    size, shape, count = gradient.size, gradient.shape, len(write)
    whole = pl.no_block_spec

    def kernel(s_ref: Any, *refs: Any) -> None:
        start = pl.program_id(0) * block
        place = start + jnp.arange(block, dtype=jnp.int32)
        mask = place < size
        of_block = pl.ds(start, block)
        given = [triton.load(ref.at[of_block], mask=mask, other=0) for ref in refs[: count + 1]]
        shared = Scalars(*(s_ref[index] for index in range(len(Scalars._fields))))
        for ref, new in zip(refs[count + 1 :], step(shared, place, *given), strict=True):
            triton.store(ref.at[of_block], new, mask=mask)

    new = pl.pallas_call(
        kernel,
        grid=(pl.cdiv(size, block),),
        in_specs=[whole] * (count + 2),
        out_specs=[whole] * count,
        out_shape=[jax.ShapeDtypeStruct((size,), array.dtype) for array in write],
        input_output_aliases={index + 2: index for index in range(count)},
        compiler_params=triton.CompilerParams(num_warps=4, num_stages=1),
        interpret=interpret,
    )(jnp.stack(scalars), *(array.reshape(-1) for array in (gradient, *write)))
    return [array.reshape(shape) for array in new]


def by_xla(
    step: Step, scalars: Scalars, gradient: jax.Array, write: Sequence[jax.Array]
) -> list[jax.Array]:
    """Return the same without a kernel."""
    place = jnp.arange(gradient.size, dtype=jnp.int32).reshape(gradient.shape)
    return list(step(scalars, place, gradient, *write))


def _kept(s: Scalars, new: jax.Array, old: jax.Array) -> jax.Array:
    return jnp.where((s.accept > 0.0) & (jnp.abs(new) <= _LARGEST), new, old)


def _applied(s: Scalars, update: jax.Array, param: jax.Array) -> jax.Array:
    old = param.astype(jnp.float32)
    new = old - s.rate * (update + s.decay * old)
    fits = jnp.abs(new) <= float(jnp.finfo(param.dtype).max)
    return jnp.where((s.accept > 0.0) & fits, new.astype(param.dtype), param)
