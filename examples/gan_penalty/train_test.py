"""The example learns, survives faults, and performs as its page says."""

import dataclasses
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradstable as gs
from examples.common.compare import Outcome, compare
from examples.gan_penalty import input_pipeline, losses, metrics
from examples.gan_penalty.configs.default import Config
from examples.gan_penalty.train import make_generator_tx, make_models, make_schedule, train


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Config:
    return Config(
        steps=20,
        hidden=16,
        batch_size=128,
        learning_rate=2e-2,
        test_size=200,
        eval_every=10,
        fault="bad-batch",
        fault_at=8,
        workdir=tmp_path_factory.mktemp("gan_penalty"),
    )


@pytest.fixture(scope="module")
def outcomes(tiny: Config) -> dict[str, Outcome]:
    return compare(tiny, train, schedule=make_schedule(tiny))


def test_critic_loss_falls_through_bad_batches(tiny: Config, outcomes: dict[str, Outcome]) -> None:
    ours = outcomes["ours"]
    assert len(ours.losses) == 20
    assert ours.losses[-5:].mean() < ours.losses[:5].mean()
    assert ours.rejected >= 1
    assert np.isfinite(ours.metric)
    scalars = gs.telemetry.read_run(tiny.workdir / "ours.jsonl").scalars
    assert list(scalars["slope"].step) == [10, 20]
    assert scalars["sliced_wasserstein"].value[-1] == pytest.approx(ours.metric, rel=1e-5)


def test_bad_batches_break_bare(outcomes: dict[str, Outcome]) -> None:
    assert np.isfinite(outcomes["bare"].losses[:7]).all()
    assert np.isnan(outcomes["bare"].losses[-5:]).all()
    assert np.isnan(outcomes["bare"].metric)


def test_rate_slips_for_both_networks_at_the_same_time(tiny: Config) -> None:
    slipped = dataclasses.replace(tiny, steps=600, fault="lr-spike", fault_at=300)
    usual = dataclasses.replace(slipped, fault="none")
    params = jnp.ones(3)

    def length_of_step(config: Config, count: int) -> float:
        tx: Any = make_generator_tx(config, "bare")
        # Moments and their correction cancel in the ratios below, which leaves the rate.
        state = optax.tree.set(tx.init(params), count=jnp.asarray(count))
        updates, _ = tx.update(params, state, params)
        return float(jnp.abs(updates[0]))

    ratios = [length_of_step(slipped, n) / length_of_step(usual, n) for n in (98, 99, 118, 119)]
    assert ratios == pytest.approx([1, 100, 100, 1], rel=1e-4)


def test_shapes(tiny: Config) -> None:
    first, second = input_pipeline.batches(batch_size=32, steps=2, seed=0)
    assert first.points.shape == second.points.shape == (32, 2)
    assert first.points.dtype == np.float32
    assert not np.array_equal(first.points, second.points)
    for fault in ("none", "fp16"):
        generator, critic = make_models(dataclasses.replace(tiny, fault=fault))
        points = generator(jnp.ones((32, tiny.noise)))
        assert points.shape == (32, 2)
        assert points.dtype == critic(points).dtype == np.float32
        assert critic(points).shape == (32,)


def test_penalty_is_part_of_the_loss(tiny: Config) -> None:
    _, critic = make_models(tiny)
    real, fake, key = jnp.ones((4, 2)), jnp.zeros((4, 2)), jax.random.key(0)
    free, penalized = (losses.critic_loss(critic, real, fake, key, weight) for weight in (0.0, 3.0))
    penalty = gs.losses.wgan_gp(critic, real, fake=fake, key=key, weight=3.0)
    assert float(penalized - free) == pytest.approx(float(penalty))
    assert float(penalty) > 0


def test_distance_is_that_of_a_shift() -> None:
    points = input_pipeline.sample(np.random.default_rng(0), 500)
    assert metrics.sliced_wasserstein(points, points[::-1]) == 0.0
    # The mean of |cos| over all directions is 2 / pi.
    shifted = metrics.sliced_wasserstein(points, points + np.array([3.0, 0.0]))
    assert shifted == pytest.approx(3.0 * 2 / np.pi, rel=1e-3)


def test_places_are_counted() -> None:
    points = input_pipeline.sample(np.random.default_rng(0), 500)
    assert metrics.places_covered(points) == 8
    assert metrics.places_covered(points[np.linalg.norm(points - [2, 0], axis=1) < 1]) == 1
    assert metrics.places_covered(0 * points) == 0
    assert metrics.judge(np.nan * points, points)["places_covered"] == 0


@pytest.mark.slow
def test_with_penalty_all_places_are_covered_at_full_length(tmp_path: Path) -> None:
    config = Config(optimizer="ours", workdir=tmp_path)
    assert compare(config, train, schedule=make_schedule(config))["ours"].metric <= 0.12
    scalars = gs.telemetry.read_run(tmp_path / "ours.jsonl").scalars
    assert scalars["places_covered"].value[-1] == 8
    assert scalars["slope"].value.max() < 2


@pytest.mark.slow
def test_without_penalty_the_critic_grows_without_bound(tmp_path: Path) -> None:
    config = Config(penalty=0.0, workdir=tmp_path)
    for name, outcome in compare(config, train, schedule=make_schedule(config)).items():
        assert outcome.metric > 0.3
        scalars = gs.telemetry.read_run(tmp_path / f"{name}.jsonl").scalars
        assert scalars["places_covered"].value[-1] < 4
        assert scalars["slope"].value[-1] > 100
