"""AdaGC as published, and what is known against it, on scalars."""

from typing import Any

import numpy as np
import pytest

from gradstable.rules import adagc
from tests.oracles.adagc import adagc as oracle
from tests.rules.leaf_norms import lognormal, run

NO_WARMUP_CLIP = {"max_norm": 1e6}


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"max_multiple": 1.5, "decay": 0.8, "warmup_steps": 5},
        {"warmup_steps": 0},
        {"warmup_steps": 1, "decay": 0.0},
    ],
)
def test_equals_the_float64_oracle(options: dict[str, Any]) -> None:
    norms = lognormal(400, 0.4, leaves=3, seed=1) * [1e-3, 1.0, 30.0]
    norms[[0, 1, 200], [0, 1, 2]] = 0.0
    norms[[150, 250], [1, 0]] *= 1e5
    scales, _ = run(adagc(**options), norms)
    np.testing.assert_allclose(scales, oracle(norms, **options), rtol=2e-5)


@pytest.mark.parametrize(
    ("sigma", "share", "level"), [(0.1, 0.49, 0.97), (0.3, 0.75, 0.79), (0.5, 0.82, 0.61)]
)
def test_weakness_it_clips_most_healthy_steps(sigma: float, share: float, level: float) -> None:
    norms = lognormal(20_000, sigma)
    scales, _ = run(adagc(**NO_WARMUP_CLIP), norms)
    assert (scales[2_000:] < 1).mean() == pytest.approx(share, abs=0.015)
    # Where it clips, the result is 1.04 times the mean.
    clipped = (scales * norms)[2_000:][scales[2_000:] < 1]
    assert np.mean(clipped / 1.04) == pytest.approx(level, abs=0.02)


def test_weakness_a_lasting_rise_to_threefold_is_clipped_for_2650_steps() -> None:
    norms = np.ones(4_000)
    norms[1_000:] = 3.0
    scales, _ = run(adagc(**NO_WARMUP_CLIP), norms)
    assert np.flatnonzero(scales[1_000:] >= 1.0)[0] == pytest.approx(2_650, abs=5)


def test_the_norm_of_a_leaf_rises_by_0_04_percent_a_step_at_most() -> None:
    norms = lognormal(2_000, 1.0, seed=3) * np.linspace(1, 1e4, 2_000)[:, None]
    scales, _ = run(adagc(), norms)
    _, early = run(adagc(), norms[:150])
    _, late = run(adagc(), norms)
    assert float(late.mean_norms[0]) <= float(early.mean_norms[0]) * 1.0004 ** (2_000 - 150) * 1.001
    assert (scales[150:, 0] * norms[150:, 0]).max() <= 1.04 * float(late.mean_norms[0]) * 1.001


def test_pitfall_a_zero_gradient_in_the_warmup_does_not_freeze_the_leaf() -> None:
    """As published, one zero makes the mean zero, and every later gradient is multiplied by it."""
    norms = np.ones((300, 2))
    norms[0, 0] = 0.0
    scales, state = run(adagc(), norms)
    assert (scales[:, 0] > 0.5).all()
    np.testing.assert_allclose(state.mean_norms[0], state.mean_norms[1], rtol=0.05)


def test_a_large_factor_is_the_identity_and_decay_zero_the_last_value() -> None:
    norms = lognormal(50, 1.0)
    scales, _ = run(adagc(max_multiple=1e30, warmup_steps=0), norms)
    assert (scales == 1.0).all()
    scales, state = run(adagc(decay=0.0, warmup_steps=0), norms)
    np.testing.assert_allclose(state.mean_norms, scales[-1] * norms[-1], rtol=1e-5)


def test_the_warmup_is_the_global_clip() -> None:
    norms = lognormal(50, 1.0, leaves=3)
    scales, _ = run(adagc(warmup_steps=1000), norms)
    whole = np.linalg.norm(norms, axis=1, keepdims=True)
    np.testing.assert_allclose(
        scales, np.broadcast_to(np.minimum(1, 1 / whole), (50, 3)), rtol=1e-5
    )


@pytest.mark.parametrize("power", [-60, 7, 60])
def test_factors_do_not_depend_on_the_unit_of_the_gradient(power: int) -> None:
    norms, unit = lognormal(60, 0.5, leaves=2), 2.0**power
    ours, _ = run(adagc(warmup_steps=20), norms)
    same, _ = run(adagc(warmup_steps=20, max_norm=unit), norms * unit)
    np.testing.assert_array_equal(ours, same)
