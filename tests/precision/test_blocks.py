"""Block floats are those of the definition, right in the mean, and never zero where they divide."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradstable._src.core.chance import random_bits
from gradstable._src.precision.blocks import BLOCK, INT8, INT16, Grid, decode, encode
from tests.oracles import block_floats

GRIDS = {"int8": INT8[0], "uint8": INT8[1], "int16": INT16[0], "uint16": INT16[1]}
ROUNDING = 2.0**-22  # of a product and a quotient in float32
EVERY = pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS)


_bits = jax.jit(random_bits, static_argnums=1)


@partial(jax.jit, static_argnums=0)
def _packed(grid: Grid, x: jax.Array, salt: jax.Array) -> tuple[jax.Array, jax.Array]:
    return encode(grid, x, random_bits(salt, x.shape))


_unpacked = jax.jit(decode, static_argnums=0)


def packed(grid: Grid, x: np.ndarray, salt: int = 0) -> tuple[jax.Array, jax.Array]:
    return _packed(grid, jnp.asarray(x, jnp.float32), jnp.uint32(salt))


def kept(grid: Grid, x: np.ndarray, salt: int = 0) -> np.ndarray:
    return np.asarray(_unpacked(grid, *packed(grid, x, salt)), np.float64)


def scattered(grid: Grid, rng: np.random.Generator, size: int, octaves: float = 40) -> np.ndarray:
    """Return float32 numbers over many powers of two, some of them zero."""
    x = np.exp2(rng.uniform(-octaves, 0, size)) * rng.choice([0, 1, 1, 1], size)
    return (x * rng.choice([-1, 1], size) if grid.signed else x).astype(np.float32)


@EVERY
@pytest.mark.parametrize("shape", [(), (2, 256), (7, 11, 13)])
def test_every_entry_becomes_one_of_the_two_numbers_next_to_it(
    grid: Grid, shape: tuple[int, ...], rng: np.random.Generator
) -> None:
    x = scattered(grid, rng, int(np.prod(shape)))
    codes, scale = packed(grid, x.reshape(shape), 3)
    assert codes.shape == shape
    assert scale.shape == (-(-x.size // BLOCK),)
    found = np.asarray(_unpacked(grid, codes, scale), np.float64).ravel()
    for begin in range(0, x.size, BLOCK):
        block, ours = x[begin : begin + BLOCK], found[begin : begin + BLOCK]
        low, high, chance = block_floats.neighbors(
            block.astype(np.float64), grid.mantissa, grid.codes, signed=grid.signed
        )
        size = np.abs(ours)
        lower = np.isclose(size, low, rtol=ROUNDING, atol=0) & (chance < 1)
        upper = np.isclose(size, high, rtol=ROUNDING, atol=0) & (chance > 0)
        assert (lower | upper).all()
        assert (np.sign(ours[size > 0]) == np.sign(block[size > 0])).all()


@EVERY
def test_mean_is_what_was_to_be_stored(grid: Grid, rng: np.random.Generator) -> None:
    # The oracle's chance of the upper neighbor, against how often it came in 4096 roundings.
    x = scattered(grid, rng, BLOCK, octaves=20)
    times = 4096
    array = jnp.asarray(x)

    def once(salt: jax.Array) -> jax.Array:
        return decode(grid, *encode(grid, array, random_bits(salt, array.shape)))

    salts = jax.random.bits(jax.random.key(1), (times,), jnp.uint32)
    found = np.abs(np.asarray(jax.jit(jax.vmap(once))(salts), np.float64))
    low, high, chance = block_floats.neighbors(
        x.astype(np.float64), grid.mantissa, grid.codes, signed=grid.signed
    )
    upper = np.isclose(found, high, rtol=ROUNDING, atol=0)
    often = upper.mean(axis=0)
    assert (upper | np.isclose(found, low, rtol=ROUNDING, atol=0)).all()
    deviation = np.sqrt(chance * (1 - chance) / times)
    assert (np.abs(often - chance) <= 5 * deviation + 1e-3).all()


@EVERY
def test_what_is_stored_is_stored_again_as_it_is(grid: Grid, rng: np.random.Generator) -> None:
    for size in (1.0, 1e-28, 1e38):  # with 1e-28, the least number is still a normal one
        codes, scale = packed(grid, size * scattered(grid, rng, 1000), 1)
        for salt in range(5):
            again = packed(grid, np.asarray(_unpacked(grid, codes, scale)), salt)
            assert np.array_equal(again[0], codes)
            assert np.array_equal(again[1], scale)


@EVERY
def test_what_shrinks_together_keeps_its_codes(grid: Grid, rng: np.random.Generator) -> None:
    """Moments decay by one factor where gradients are small: that adds no noise."""
    codes, scale = packed(grid, scattered(grid, rng, 1000), 1)
    shrunk = np.asarray(_unpacked(grid, codes, scale)) * np.float32(0.999)
    assert np.array_equal(packed(grid, shrunk, 7)[0], codes)


@pytest.mark.parametrize("name", ["uint8", "uint16"])
def test_pitfall_second_moment_beside_a_huge_one_never_becomes_zero(name: str) -> None:
    """One huge entry, others tiny: what is not zero is at least 2**-32 of the huge one."""
    for huge in (1.0, 1e30, 3.4e38):
        for tiny in (1e-45, 1e-38, 1e-20, 1e-8):
            x = np.full(BLOCK, tiny, np.float32)
            x[17], x[18] = huge, 0.0
            found = kept(GRIDS[name], x)
            assert found[18] == 0.0
            rest = np.delete(found, [17, 18])
            assert (rest >= huge * 2.0**-32).all()
            assert (rest <= max(tiny * 1.125, huge * 2.0**-31)).all()


@EVERY
def test_extremes_stay_finite_and_nearly_what_they_are(grid: Grid) -> None:
    largest, least = np.finfo(np.float32).max, np.finfo(np.float32).tiny
    for x in (largest, -largest, least, 0.0, -0.0, 1e-45):
        found = kept(grid, np.full(1000, x, np.float32), 5)
        assert np.isfinite(found).all()
        if x in (0.0, -largest, 1e-45) and not (grid.signed and x == -largest):
            assert (found <= least).all()
        else:
            assert np.abs(found - x).max() <= abs(x) * 2.0**-grid.mantissa


def test_random_bits_are_even_and_do_not_repeat() -> None:
    size = 1 << 16
    one, other, far = (
        np.asarray(_bits(jnp.uint32(salt), (4, size // 4))).ravel() for salt in (1, 2, 2**31)
    )
    assert len(np.unique(one)) == size  # a permutation of the places
    for bits in (one, other, far):
        for high in (bits >> 24, (bits >> 4) & 255):
            counts = np.bincount(high, minlength=256)
            # Chi squared of 255 degrees of freedom: a mean of 255, a deviation of 22.6.
            assert ((counts - size / 256) ** 2 / (size / 256)).sum() < 255 + 5 * 22.6
    for first, second in ((one, other), (one, far), (one[1:], one[:-1]), (one[4096:], one[:-4096])):
        assert abs(np.corrcoef(first, second)[0, 1]) < 5 / np.sqrt(len(first))
