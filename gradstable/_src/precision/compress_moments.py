"""Moments in 8 or 16 bits between steps, rounded stochastically so that none stalls."""

from collections.abc import Sequence
from functools import partial
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax

from gradstable._src.core.checks import (
    check_choice,
    check_key,
    check_name,
    check_size,
)
from gradstable._src.core.keys import key_numbers, key_of
from gradstable._src.core.names import Unnamed, answers_as_inner, with_names, without_names
from gradstable._src.core.order import inside
from gradstable._src.core.select import own_arrays
from gradstable._src.core.shown import shown
from gradstable._src.core.tree_checks import check_state
from gradstable._src.core.wrapped import explaining
from gradstable._src.precision.fields import Field, Signs, fields, with_fields
from gradstable._src.precision.storage import Packed, Storage, pack, start, unpack

_SIGNED = ("mu", "mu_slow", "mu_diff", "trace", "ema", "exp_avg")
# Not nu_max: the maximum of stochastically rounded numbers would only ever rise.
_NONNEGATIVE = ("nu", "sum_of_squares", "exp_avg_sq", "e_g", "e_x")


@answers_as_inner
class CompressMomentsState(NamedTuple):
    """State of ``compress_moments``."""

    rounding_key: jax.Array  # the plain numbers of a key
    block_scales: tuple[Unnamed, ...]  # one per statistic: a tree like it, shape=(blocks,), float32
    wrapped_state: Any  # that of inner, with its statistics in stored form


@shown
def compress_moments(
    inner: optax.GradientTransformation,
    *,
    to: Storage = "int8",
    min_size: int = 4096,
    signed: Sequence[str] = _SIGNED,
    nonnegative: Sequence[str] = _NONNEGATIVE,
    key: int | jax.Array = 0,
) -> optax.GradientTransformationExtraArgs:
    r"""Keep the moments of any optimizer in 8 or 16 bits.

    Use it where the optimizer state does not fit: Adam's two moments take 2.03 bytes per parameter
    instead of 8. Put it around the optimizer, and the guard around both, as in
    ``gs.guard(gs.precision.compress_moments(optax.adamw(3e-4)))``. A step computes in float32:
    moments are unpacked, ``inner`` updates them, and the result is packed again. Do not use it
    where moments are a small part of the memory: it takes time and adds noise.

    Rounding to nearest would not work: with ``b2=0.999`` a second moment changes by a thousandth of
    itself per step, far below the spacing of bfloat16, so once high it never falls. Here it is
    rounded up or down at random. If the numbers next to :math:`x` are :math:`\varepsilon` apart, it
    becomes

    .. math:: x' = \varepsilon \lfloor x / \varepsilon + \xi \rfloor, \qquad
              \xi \sim U[0, 1), \qquad E[x'] = x

    which is right on average. With ``to="bfloat16"``, the numbers are those of bfloat16. Otherwise
    they are zero and

    .. math:: \pm s\, 2^{-e} (1 + j / 2^m), \qquad j = 0 \ldots 2^m - 1, \qquad
              s = \max_{block} |x|

    up to :math:`s` itself: small floats scaled by the largest entry of a block of 256 consecutive
    entries in memory. That entry is exact, and entries that decay together keep their codes,
    without noise. For ``"int8"``, ``m`` is 3 (steps of 1/16 to 1/8) and ``2**e`` goes up to
    ``2**16``, or up to ``2**32`` for nonnegative entries, which need no sign. For ``"int16"``,
    ``m`` is 10 or 11 and ``2**e`` goes up to ``2**32``: the precision of float16, in which a square
    below 3e-8 would be zero. A nonnegative entry that is not zero is never rounded to zero but at
    least to the smallest number, so no first moment is divided by zero: a root is at least
    :math:`2^{-16}` of the largest in its block.

    Entries that ``inner`` makes non-finite keep their old values. Leaves smaller than ``min_size``,
    complex leaves and all other fields are left alone, except for float16 and bfloat16 moments,
    which become float32.

    Known weakness: 8 bits add noise of about a tenth of a moment, and an entry whose gradients are
    less than ``2**-16`` of another's in its block gets steps that are too short. Embeddings have
    such rows: exclude them with ``optax.partition``, as bitsandbytes does. It saves only the state
    between steps: on the CPU, XLA holds the float32 moments of all leaves at the same time inside a
    step (2.1 words of temporary memory per parameter). On a mesh, blocks span devices, so every
    device gathers each moment to measure them; ``"bfloat16"`` has no blocks. Do not use it inside
    ``jax.shard_map``, where each part would have its own blocks, and all devices would round alike.

    Args:
      inner: any optax transform whose states are named tuples; it sees its moments in float32.
      to: ``"int8"``, ``"int16"`` or ``"bfloat16"``: 1.02, 2.02 or 2 bytes per entry. Default
        ``"int8"``.
      min_size: leaves with fewer entries stay as they are, >= 1. Default 4096 (as in bitsandbytes):
        biases and norms are small, and matter.
      signed: names of the fields, in the states of ``inner``, whose entries have both signs.
        Default: those in which optax and gradstable keep averages of gradients. Do not list
        anything that is not an average, such as parameters or accumulated gradients.
      nonnegative: names of the fields with second moments. Default: those of optax and gradstable.
      key: a seed, >= 0, or a key of ``jax.random``. Default 0. The same key gives the same run.

    Returns:
      A ``GradientTransformationExtraArgs`` with a ``CompressMomentsState``; updates are those of
      ``inner``.

    Raises:
      TypeError: if ``inner`` is not a transform, or a name is not a string.
      ValueError: if an argument is out of its range, a name is in both lists, ``inner`` contains a
        rollback, or, at ``init``, if it has none of the fields.

    Example:
      >>> import jax.numpy as jnp
      >>> import optax
      >>> import gradstable as gs
      >>> tx = gs.guard(gs.precision.compress_moments(optax.adamw(1e-3)))
      >>> state = tx.init({"kernel": jnp.ones((64, 64)), "bias": jnp.ones(64)})
      >>> nu = state.wrapped_state.wrapped_state[0].nu
      >>> nu["kernel"].dtype.name, nu["bias"].dtype.name
      ('uint8', 'float32')

    Source:
      Dettmers, Lewis, Shleifer, Zettlemoyer, "8-bit Optimizers via Block-wise Quantization", 2021,
      arXiv:2110.02861, for blocks and for what is left out; the number formats are ours. Stochastic
      rounding: Zamirai, Zhang, Aberger, De Sa, "Revisiting BFloat16 Training", 2020,
      arXiv:2010.06192.
    """
    inner = inside("compress_moments", inner)
    check_choice("to", to, ("int8", "int16", "bfloat16"))
    check_size("min_size", min_size, at_least=1)
    check_key("key", key)
    signs = _signs(signed, nonnegative)

    def init_fn(params: optax.Params) -> CompressMomentsState:
        inner_state = inner.init(params)
        found = fields(inner_state, signs, params)
        _check_found(found, signs)
        packed = [
            jax.tree.map(partial(start, to, signed, min_size), tree) for signed, tree in found
        ]
        state = CompressMomentsState(
            rounding_key=key_numbers(key),
            block_scales=_scales(packed, params),
            wrapped_state=with_fields(inner_state, signs, params, _parts(packed, "stored")),
        )
        return own_arrays(state)

    def update_fn(
        updates: optax.Updates,
        state: optax.OptState,
        params: optax.Params | None = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, CompressMomentsState]:
        old = check_state(state, CompressMomentsState, "compress_moments")
        new_key, own_key = jax.random.split(key_of(old.rounding_key, key))
        kept = fields(old.wrapped_state, signs, updates)
        pairs = zip(kept, old.block_scales, strict=True)
        scales = [with_names(scale, stored) for (_, stored), scale in pairs]
        numbers = [
            jax.tree.map(partial(unpack, to, signed), stored, scale)
            for (signed, stored), scale in zip(kept, scales, strict=True)
        ]
        unpacked = with_fields(old.wrapped_state, signs, updates, numbers)
        with explaining(updates, params):
            stepped, new_state = inner.update(updates, unpacked, params, **extra_args)
        made = fields(new_state, signs, updates)
        each = zip(made, numbers, kept, scales, _salts(own_key, numbers), strict=True)
        packed = [
            jax.tree.map(partial(pack, to, signed), new, before, stored, scale, salts)
            for (signed, new), before, (_, stored), scale, salts in each
        ]
        return stepped, CompressMomentsState(
            rounding_key=jax.random.key_data(new_key),
            block_scales=_scales(packed, updates),
            wrapped_state=with_fields(new_state, signs, updates, _parts(packed, "stored")),
        )

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def _is_sequence_of_names(given: object) -> bool:
    return isinstance(given, Sequence) and not isinstance(given, str)


def _signs(signed: Sequence[str], nonnegative: Sequence[str]) -> dict[str, bool]:
    """Return whether each name is signed."""
    for argument, names in (("signed", signed), ("nonnegative", nonnegative)):
        if not _is_sequence_of_names(names):
            msg = f"{argument} must be a sequence of names such as ('mu',), got {names!r}"
            raise TypeError(msg)
        for name in names:
            check_name(argument, name)
    twice = sorted(set(signed) & set(nonnegative))
    if twice:
        msg = f"signed and nonnegative must have no name in common, got {twice} in both"
        raise ValueError(msg)
    return {**dict.fromkeys(signed, True), **dict.fromkeys(nonnegative, False)}


def _check_found(found: list[Field], signs: Signs) -> None:
    if not found:
        msg = (
            f"inner has no state with a field named {sorted(signs)}, so there is nothing to "
            "compress: name its fields with signed= and nonnegative=, or drop compress_moments"
        )
        raise ValueError(msg)


def _scales(packed: list[Any], like: Any) -> tuple[Unnamed, ...]:
    return tuple(without_names(tree, like) for tree in _parts(packed, "scale"))


def _parts(packed: list[Any], part: Literal["stored", "scale"]) -> tuple[Any, ...]:
    """Return trees of the codes, or of the scales, from trees of both."""

    def is_packed(node: Any) -> bool:
        return isinstance(node, Packed)

    return tuple(
        jax.tree.map(lambda leaf: getattr(leaf, part), tree, is_leaf=is_packed) for tree in packed
    )


def _salts(key: jax.Array, trees: list[Any]) -> list[Any]:
    """Return a random number for every leaf."""
    leaves, structure = jax.tree.flatten(trees)
    bits = jax.random.bits(key, (max(len(leaves), 1),), jnp.uint32)
    return jax.tree.unflatten(structure, [bits[index] for index in range(len(leaves))])
