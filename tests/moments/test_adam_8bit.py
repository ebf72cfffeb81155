"""Both moments in 16 bits: the format against its definition, and steps against float32."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given
from hypothesis import strategies as st

import gradstable as gs
from benchmarks.counting import compile_step, count_common_path, large_tree
from gradstable._src.core.chance import bits_at, spread_bits
from gradstable._src.moments.codes import LARGEST_RATIO, decode, encode
from tests.moments.running import directions
from tests.rejection import assert_rejected_step_changes_no_bit

ADAM, OURS = gs.moments.scale_by_adam, gs.moments.scale_by_adam_8bit
SIZE = 1024


@cache
def numbers() -> tuple[np.ndarray, np.ndarray]:
    """Return the roots and the sizes of ratios, from their definition, in float64."""
    root = np.array([2.0 ** (e - 63) * (1 + j / 8) for e in range(128) for j in range(8)])
    steps = [2.0 ** (e - 7) * (1 + j / 4) for e in range(8) for j in range(4)]
    size = (np.array(steps) - 2.0**-7) * LARGEST_RATIO / (1.75 - 2.0**-7)
    return root, size


def test_codes_stand_for_the_numbers_they_are_said_to() -> None:
    root, size = numbers()
    codes = np.arange(2**16)
    ratio, of_root = decode(jnp.asarray(codes, jnp.uint16))
    np.testing.assert_array_equal(of_root, root[codes >> 6].astype(np.float32))
    expected = size[codes & 31] * np.where(codes & 32, -1.0, 1.0)
    np.testing.assert_allclose(ratio, expected, rtol=1e-6)
    assert size[0] == 0.0
    assert size[-1] == pytest.approx(LARGEST_RATIO)


def test_stored_numbers_stay_what_they_are() -> None:
    """What does not change adds no noise."""
    codes = jnp.arange(2**16, dtype=jnp.uint16)
    ratio, root = decode(codes)
    for seed in range(20):
        bits = spread_bits(jnp.int32(seed), codes)
        again = np.asarray(encode(ratio * root, root, bits), np.int32)
        # Next to bits that are nearly all equal, the rounding of a quotient looks like a step.
        assert (again == np.asarray(codes)).mean() > 0.9999
        assert np.abs(again - np.asarray(codes, np.int32)).max() <= 1


@given(st.floats(-60.0, 60.0), st.floats(-1.0, 1.0))
def test_rounding_is_to_a_neighbor_and_right_on_average(exponent: float, share: float) -> None:
    count = 4096
    root = np.float32(2.0**exponent)
    mu = np.float32(share * 7.0 * root)
    bits = spread_bits(jnp.int32(12345), jnp.zeros(count))
    ratio, kept = decode(
        encode(jnp.full(count, mu, jnp.float32), jnp.full(count, root, jnp.float32), bits)
    )
    kept64, product = np.asarray(kept, np.float64), np.asarray(ratio, np.float64) * kept
    assert (np.abs(kept64 / root - 1.0) <= 1 / 8).all()
    assert kept64.mean() == pytest.approx(root, rel=1e-3)
    # A step of the ratio is at most a fourth of it, or 2**-9 of the whole range.
    spacing = np.maximum(np.abs(mu) / 4, LARGEST_RATIO / 2**8 * root) * 1.13
    assert (np.abs(product - mu) <= spacing).all()
    assert product.mean() == pytest.approx(mu, abs=float(1e-2 * spacing))


def test_extremes_stay_finite() -> None:
    largest, least = 2.0**63, np.finfo(np.float32).tiny
    for mu, root in ((0.0, 0.0), (-0.0, least), (largest, largest), (-largest, least), (1e-45, 0)):
        for bits in (0, 2**32 - 1):
            code = encode(jnp.float32(mu), jnp.float32(root), jnp.uint32(bits))
            ratio, kept = decode(code)
            assert abs(float(ratio)) <= LARGEST_RATIO * (1 + 1e-6)
            assert 2.0**-63 <= float(kept) <= 2.0**65
    assert float(decode(jnp.uint16(0))[0]) == 0.0


def test_bits_are_even_over_entries_and_over_steps() -> None:
    """Both numbers in them, more even than random ones: chi squared would be 255."""
    of_entries = np.asarray(spread_bits(jnp.int32(77), jnp.zeros((64, 64)))).ravel()
    of_steps = np.asarray(bits_at(jnp.arange(4096), jnp.int32(5)))
    for bits in (of_entries, of_steps):
        for high in (bits >> 24, (bits >> 13) & 255):
            counts = np.bincount(high, minlength=256)
            assert ((counts - 16) ** 2 / 16).sum() < 100
    # An entry and its neighbors in space and time are not rounded alike.
    block = np.asarray(bits_at(jnp.arange(64)[:, None], jnp.arange(64)))
    assert len(np.unique(block >> 11)) == block.size


def test_bits_of_an_entry_are_those_of_its_place_in_memory() -> None:
    bits = spread_bits(jnp.int32(3), jnp.zeros((4, 5, 6)))
    expected = bits_at(jnp.int32(3), jnp.arange(120))
    np.testing.assert_array_equal(bits.ravel(), expected)


def falling(steps: int) -> jax.Array:
    """Gradients that scatter by 1 at first, and by a hundredth after a tenth of the steps."""
    level = jnp.where(jnp.arange(steps) < steps // 10, 1.0, 0.01)
    return level[:, None] * jax.random.normal(jax.random.key(0), (steps, SIZE))


def states(tx: optax.GradientTransformation, gradients: jax.Array) -> optax.OptState:
    def step(state: optax.OptState, g: jax.Array) -> tuple[optax.OptState, None]:
        return tx.update(g, state)[1], None

    return jax.jit(lambda g: jax.lax.scan(step, tx.init(g[0]), g)[0])(gradients)


def test_second_moment_falls_as_in_float32() -> None:
    """Pitfall: rounded to nearest, a root that changes by a thousandth never changes."""
    gradients = falling(2500)
    _, root = decode(states(OURS(), gradients).moment_codes)
    ratio = np.asarray(root) / np.sqrt(states(ADAM(), gradients).nu)
    # It falls by a factor of three, in steps of a tenth, and can be late by one.
    assert ratio.mean() == pytest.approx(1.0, abs=0.1)
    assert ratio.std() < 0.2


@pytest.mark.parametrize("b2", [0.95, 0.999])
def test_updates_are_those_of_adam_and_noise(b2: float) -> None:
    gradients = jax.random.normal(jax.random.key(1), (300, SIZE)) + 0.1
    expected = directions(ADAM(b2=b2), gradients)[100:]
    found = directions(OURS(b2=b2), gradients)[100:]
    assert np.corrcoef(found.ravel(), expected.ravel())[0, 1] > 0.95
    # Noise of a fifth; on average over entries and steps it cancels.
    assert np.sqrt(((found - expected) ** 2).mean() / (expected**2).mean()) < 0.21
    assert found.mean() == pytest.approx(expected.mean(), rel=0.03)
    assert (found * expected).sum() / (expected**2).sum() == pytest.approx(1.0, abs=0.06)


@pytest.mark.parametrize("level", [1e-12, 1e-6, 1e3, 1e15])
def test_no_size_of_gradients_is_too_small_or_too_large(level: float) -> None:
    gradients = level * jax.random.normal(jax.random.key(2), (50, SIZE))
    ours, theirs = (directions(tx(eps=0.0), gradients)[-1] for tx in (OURS, ADAM))
    assert np.corrcoef(ours, theirs)[0, 1] > 0.95


def adversarial(steps: int) -> jax.Array:
    """Neighbors of very different sizes, and a spike."""
    scale = 10.0 ** -jnp.linspace(0.0, 12.0, SIZE).at[::256].set(-6.0)
    noise = jax.random.normal(jax.random.key(2), (steps, SIZE))
    return (noise * scale).at[steps // 2].multiply(1e4)


@pytest.mark.parametrize(("b2", "bound"), [(0.999, 8.27), (0.95, 1.17 * 1.125 * 1.25)])
def test_update_stays_bounded_beside_huge_neighbors(b2: float, bound: float) -> None:
    found = np.abs(directions(OURS(b2=b2, eps=0.0), adversarial(600)))
    steps = np.arange(1, 601)[:, None]
    assert (found <= bound * np.sqrt(1 - b2**steps) / (1 - 0.9**steps) * (1 + 1e-5)).all()


def test_an_entry_is_the_same_whatever_its_neighbors() -> None:
    """No block: pitfall of scaled formats, where one huge entry takes the precision of others."""
    gradients = jax.random.normal(jax.random.key(3), (30, SIZE))
    alone = directions(OURS(), gradients)
    beside = directions(OURS(), gradients.at[:, 1::2].multiply(1e12))
    np.testing.assert_array_equal(beside[:, ::2], alone[:, ::2])


def test_rejected_step_changes_no_bit() -> None:
    assert_rejected_step_changes_no_bit(gs.adamw_8bit(1e-3), SIZE)


def test_unsound_entry_keeps_its_codes_without_a_guard() -> None:
    tx = OURS()
    state = states(tx, falling(20))
    _, new = tx.update(jnp.ones(SIZE).at[:3].set(jnp.asarray([jnp.nan, jnp.inf, 1e30])), state)
    np.testing.assert_array_equal(new.moment_codes[:3], state.moment_codes[:3])
    assert (new.moment_codes[3:] != state.moment_codes[3:]).mean() > 0.5


def test_cost_by_xla_counts() -> None:
    """The floor is 5 words (4 without a guard): this CPU backend reads the gradient once more."""
    tree = large_tree()
    tx = gs.adamw_8bit(3e-4)
    assert count_common_path(tx, tree).words <= 5.51
    assert compile_step(tx, tree)[1].temp <= 0.02
    state = jax.eval_shape(tx.init, tree)
    held = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(state))
    assert held / sum(leaf.size for leaf in tree.values()) <= 2.001
