"""The example learns, survives faults, and performs as its page says."""

import dataclasses
from pathlib import Path

import jax
import numpy as np
import pytest
from flax import nnx

import gradstable as gs
from examples.common.compare import Outcome, compare
from examples.digits_cnn import input_pipeline
from examples.digits_cnn.configs.default import Config
from examples.digits_cnn.models import CLASSES, penalty
from examples.digits_cnn.stopping import Best
from examples.digits_cnn.train import make_model, make_schedule, train


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Config:
    return Config(
        steps=20,
        width=4,
        batch_size=32,
        cycles=1,
        eval_every=2,
        patience=3,
        fault="bad-batch",
        fault_at=8,
        workdir=tmp_path_factory.mktemp("digits_cnn"),
    )


@pytest.fixture(scope="module")
def outcomes(tiny: Config) -> dict[str, Outcome]:
    return compare(tiny, train, schedule=make_schedule(tiny))


def test_loss_falls_through_bad_batches(outcomes: dict[str, Outcome]) -> None:
    ours = outcomes["ours"]
    assert len(ours.losses) == 20
    assert ours.losses[-5:].mean() < ours.losses[:5].mean()
    assert ours.rejected >= 1
    assert "['" in ours.explanation


def test_bad_batches_break_bare_and_patience_ends_it(outcomes: dict[str, Outcome]) -> None:
    losses = outcomes["bare"].losses
    assert not np.isfinite(losses[-1])
    assert len(losses) < 20


def test_run_is_recorded(tiny: Config, outcomes: dict[str, Outcome]) -> None:
    assert outcomes
    run = gs.telemetry.read_run(tiny.workdir / "ours.jsonl")
    assert len(run.step) == tiny.steps
    assert len(run.scalars["validation_loss"].step) == 10
    assert "stopped early" in gs.telemetry.read_run(tiny.workdir / "bare.jsonl").notes[-1].text


def test_shapes(tiny: Config) -> None:
    splits = input_pipeline.load(tiny.seed)
    assert [len(part.label) for part in splits] == [1197, 240, 360]
    assert splits.train.image.shape[1:] == (8, 8, 1)
    assert splits.train.image.dtype == np.float32
    first, second = input_pipeline.batches(splits.train, steps=2, batch_size=32, seed=0)
    assert first.image.shape == second.image.shape == (32, 8, 8, 1)
    assert not np.array_equal(first.label, second.label)
    half = make_model(dataclasses.replace(tiny, fault="fp16"))
    for model in (half, make_model(tiny)):
        model.eval()
        logits = model(jax.numpy.asarray(first.image))
        assert logits.shape == (32, CLASSES)
        assert logits.dtype == np.float32


def test_images_move_by_one_pixel() -> None:
    image = np.arange(1.0, 10.0).reshape(1, 3, 3, 1)
    moved = input_pipeline.move(image, np.array([[1, -1]]))[0, :, :, 0]
    assert moved.tolist() == [[0, 4, 5], [0, 7, 8], [0, 0, 0]]


def test_rate_restarts() -> None:
    config = Config(steps=400, cycles=4)
    rates = np.array([float(np.asarray(make_schedule(config)(step))) for step in range(400)])
    assert (np.diff(rates) > 0.05 * config.learning_rate).sum() >= 3
    assert np.argmax(rates[100:200]) == np.argmax(rates[:100]) == 10
    assert rates.max() == pytest.approx(config.learning_rate)


def test_penalty_leaves_biases_alone() -> None:
    layer = nnx.Linear(2, 1, rngs=nnx.Rngs(0), bias_init=nnx.initializers.ones)
    nnx.update(layer, {"kernel": jax.numpy.array([[3.0], [-4.0]])})
    assert float(penalty(layer, l1=1.0, l2=0.0)) == 7.0
    assert float(penalty(layer, l1=0.0, l2=1.0)) == 12.5


def test_best_is_kept_and_waiting_is_counted() -> None:
    best = Best().look(1, 2.0, "a").look(2, 1.0, "b").look(3, float("nan"), "c").look(4, 1.5, "d")
    assert best == Best(1.0, 2, "b", waited=2)
    assert best.look(5, 0.5, "e").waited == 0


@pytest.mark.slow
def test_accuracy_at_full_length(tmp_path: Path) -> None:
    config = Config(optimizer="ours", workdir=tmp_path)
    assert compare(config, train, schedule=make_schedule(config))["ours"].metric >= 0.98
