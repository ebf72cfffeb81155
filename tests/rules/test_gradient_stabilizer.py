"""GradientStabilizer as published, and what is known against it, on scalars."""

from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

import gradstable as gs
from gradstable.rules import gradient_stabilizer
from tests.oracles.gradient_stabilizer import bound
from tests.oracles.gradient_stabilizer import gradient_stabilizer as oracle
from tests.rules.leaf_norms import lognormal, run

FIRST_VERSION = {"b1": 0.7, "b2": 0.9, "eps": 1e-8, "bias_correction": True}


def norms_after(norms: np.ndarray, **options: Any) -> np.ndarray:
    norms = norms.reshape(len(norms), -1)
    return run(gradient_stabilizer(**options), norms)[0] * norms


@pytest.mark.parametrize(
    "options",
    [{}, FIRST_VERSION, {"b1": 0.85, "b2": 0.99999, "bias_correction": True}, {"b1": 0.0}],
)
def test_equals_the_float64_oracle(options: dict[str, Any]) -> None:
    norms = lognormal(300, 0.5, leaves=3, seed=2) * [1e-6, 1.0, 1e4]
    norms[200, 1] *= 1e4
    norms[50:60, 2] = 0.0
    got = norms_after(norms, **options)
    # float32 knows 1 - 0.99999**t to five digits at first.
    rtol = 2e-3 if options.get("b2") == 0.99999 else 2e-5
    np.testing.assert_allclose(got, oracle(norms, **options), rtol=rtol)


def test_weakness_a_spike_is_amplified_near_to_the_bound() -> None:
    norms = np.ones(16_000)
    norms[12_000] = 1_000.0
    after = norms_after(norms)[:, 0]
    assert after[11_999] == pytest.approx(1.0, abs=0.01)
    np.testing.assert_allclose(after[12_000:12_005], [12.66, 7.61, 4.58, 2.76, 1.67], atol=0.02)
    assert bound(0.6, 0.999) == pytest.approx(15.8, abs=0.05)
    assert (after[12_001:] < 0.1).sum() == pytest.approx(2_300, abs=20)


@pytest.mark.parametrize(
    ("options", "largest"), [({}, bound(0.6, 0.999)), ({"b1": 0.7, "b2": 0.9}, bound(0.7, 0.9))]
)
@pytest.mark.parametrize("size", [1e3, 1e9, 1e18])
def test_no_spike_passes_the_bound(options: dict[str, Any], largest: float, size: float) -> None:
    norms = lognormal(300, 1.0, seed=5)
    norms[[100, 101, 200]] *= size
    assert norms_after(norms, **options).max() <= largest * (1 + 1e-5)


def test_weakness_first_steps_are_large_without_bias_correction() -> None:
    after = norms_after(np.full(10, 3.0))[:, 0]
    np.testing.assert_allclose(after[:3], [12.65, 14.31, 14.32], atol=0.01)
    after = norms_after(np.full(10, 3.0), bias_correction=True)[:, 0]
    np.testing.assert_allclose(after, 1.0, rtol=1e-4)


def test_the_first_version_is_tame() -> None:
    norms = np.ones(600)
    norms[500] = 1_000.0
    assert norms_after(norms, **FIRST_VERSION).max() <= 1.0001
    assert bound(0.7, 0.9) == pytest.approx(1.41, abs=0.01)


def test_without_memory_it_normalizes() -> None:
    np.testing.assert_allclose(norms_after(lognormal(20, 2.0), b1=0.0, b2=0.0), 1.0, rtol=1e-5)


@pytest.mark.parametrize("power", [-80, 13, 50])
def test_the_result_does_not_depend_on_the_unit_of_the_gradient(power: int) -> None:
    """Pitfall: a squared norm of 1e-24 underflows, and the quotient is infinite."""
    norms = lognormal(40, 0.5)
    np.testing.assert_array_equal(norms_after(norms), norms_after(norms * 2.0**power))


@pytest.mark.parametrize("norm", [0.0, 1e-45, 1e-38, 1e-31])
def test_pitfall_what_is_almost_zero_stays_as_it_is(norm: float) -> None:
    rule = gradient_stabilizer()
    verdict, _ = rule.decide(gs.Measure.of(jnp.float32(norm)), rule.init([1.0]))
    assert verdict.scale[0] == 1.0


def test_small_gradients_are_raised_by_the_transform() -> None:
    tx = gs.clipping.clip_by(gs.rules.gradient_stabilizer(**FIRST_VERSION))
    g: Any = {"a": jnp.asarray([3e-3, 4e-3]), "b": jnp.asarray([300.0], jnp.bfloat16)}
    updates: Any
    updates, state = tx.update(g, tx.init(g))
    np.testing.assert_allclose(updates["a"], [0.6, 0.8], rtol=1e-4)
    np.testing.assert_allclose(np.asarray(updates["b"], np.float32), [1.0], rtol=1e-2)
    assert gs.health(state).reason == gs.rules.Reason.NORM_STABILIZED
