"""Bits are flipped where a storm says so, and nowhere else."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gradstable_gauntlet.contestant import Contestant
from gradstable_gauntlet.flips import FLIPS, SHARE, flipped
from gradstable_gauntlet.run import final_losses, member, runner
from gradstable_gauntlet.storms import calm, last_fault, weather_of

import gradstable as gs
from benchmarks.gauntlet.tests.mine import line
from benchmarks.gauntlet.tests.test_run import guarded

TREE = {"w": np.linspace(-2.0, 3.0, 15, dtype=np.float32).reshape(3, 5), "b": np.ones(7, "f4")}
KEY = jax.random.key(3)


def words(tree):
    return np.concatenate([np.asarray(leaf).ravel() for leaf in jax.tree.leaves(tree)]).view("u4")


@pytest.mark.parametrize("bit", [0, 11, 23, 30, 31])
def test_a_bit_of_a_single_entry(bit) -> None:
    changed = words(flipped(TREE, jnp.uint32(1 << bit), jnp.int32(0), KEY)) ^ words(TREE)
    assert sorted(changed.tolist()) == [0] * 21 + [1 << bit]


def test_each_step_strikes_another_entry() -> None:
    places = {
        int(
            np.flatnonzero(
                words(flipped(TREE, jnp.uint32(1), 0, jax.random.key(seed))) ^ words(TREE)
            )[0]
        )
        for seed in range(40)
    }
    assert len(places) > 10


def test_every_fourth_entry_across_leaves() -> None:
    changed = words(flipped(TREE, jnp.uint32(6), jnp.int32(4), KEY)) ^ words(TREE)
    np.testing.assert_array_equal(changed, np.where(np.arange(22) % 4 == 0, 6, 0))


def test_no_bit_is_flipped_without_a_mask() -> None:
    tree = {"w": np.array([0.0, -0.0, np.nan, np.inf, 1e-45], np.float32)}
    np.testing.assert_array_equal(words(flipped(tree, jnp.uint32(0), 1, KEY)), words(tree))


@pytest.mark.parametrize("name", FLIPS)
def test_a_fiftieth_of_the_steps_is_struck(name) -> None:
    weather = weather_of(name, FLIPS[name], steps=500, seed=1)
    struck = (weather.flips.gradient | weather.flips.params) != 0
    assert struck.sum() == round(SHARE * 450)
    assert not struck[:50].any()
    assert last_fault(weather) == np.flatnonzero(struck)[-1]
    in_params = (weather.flips.params != 0).any()
    assert in_params == name.startswith("params")


def test_the_guard_rejects_a_gradient_with_a_high_exponent() -> None:
    storm = "gradient: exponent, highest"
    one = Contestant(guarded, "Adam behind the guard", base="bare", ours=True)
    members = [
        member(seed=3, rate=0.1, weather=weather)
        for weather in (calm(60), weather_of(storm, FLIPS[storm], steps=60, seed=3))
    ]
    traces = runner(line(), one, width=2)(members)
    assert traces.touched[1] > traces.touched[0]
    still, struck = final_losses(traces)
    assert struck <= 1.5 * still


def test_a_fingerprint_sees_every_flip() -> None:
    for bit in range(32):
        after = flipped(TREE, jnp.uint32(1 << bit), jnp.int32(0), KEY)
        assert (gs.fingerprint(after) != gs.fingerprint(TREE)).any()
