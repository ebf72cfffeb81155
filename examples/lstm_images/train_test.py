"""The example learns, survives faults, and performs as its page says."""

import dataclasses
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import gradstable as gs
from examples.common.compare import Outcome, compare
from examples.lstm_images import input_pipeline
from examples.lstm_images.configs.default import Config
from examples.lstm_images.models import RowReader
from examples.lstm_images.train import make_model, make_schedule, train


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Config:
    return Config(
        steps=20,
        hidden=16,
        learning_rate=5e-2,
        batch_size=32,
        eval_every=10,
        fault="bad-batch",
        fault_at=8,
        workdir=tmp_path_factory.mktemp("lstm_images"),
    )


@pytest.fixture(scope="module")
def outcomes(tiny: Config) -> dict[str, Outcome]:
    return compare(tiny, train, schedule=make_schedule(tiny))


def test_loss_falls_through_bad_batches(tiny: Config, outcomes: dict[str, Outcome]) -> None:
    ours = outcomes["ours"]
    assert ours.losses[-5:].mean() < ours.losses[:5].mean()
    assert ours.rejected >= 1
    run = gs.telemetry.read_run(tiny.workdir / "ours.jsonl")
    assert run.rejected.sum() == ours.rejected
    assert list(run.scalars["accuracy"].step) == [10, 20]


def test_bad_batches_break_bare(outcomes: dict[str, Outcome]) -> None:
    assert np.isfinite(outcomes["bare"].losses[:9]).all()
    assert np.isnan(outcomes["bare"].losses[-10:]).all()


def fresh_logits(config: Config, images: jax.Array) -> jax.Array:
    return make_model(config)(images)


def test_shapes(tiny: Config) -> None:
    data, held = input_pipeline.split(held_out=360, seed=0)
    assert data.images.shape == (1437, 8, 8)
    assert held.images.shape == (360, 8, 8)
    assert (data.images.min(), data.images.max()) == (0.0, 1.0)
    first, second = input_pipeline.batches(data, batch_size=32, steps=2, seed=0)
    assert first.images.shape == second.images.shape == (32, 8, 8)
    assert not np.array_equal(first.labels, second.labels)
    for fault in ("none", "fp16"):
        config = dataclasses.replace(tiny, fault=fault)
        logits = nnx.eval_shape(partial(fresh_logits, config), first.images)
        assert logits.shape == (32, 10)
        assert logits.dtype == np.float32


def test_reads_from_top_to_bottom(tiny: Config) -> None:
    model, read = make_model(tiny), nnx.jit(RowReader.__call__)
    image = jnp.zeros((1, 8, 8)).at[0, 0].set(1.0)
    assert not np.allclose(read(model, image), read(model, image[:, ::-1]))


@pytest.mark.slow
def test_accuracy_at_full_length(tmp_path: Path) -> None:
    config = Config(optimizer="ours", workdir=tmp_path)
    assert compare(config, train, schedule=make_schedule(config))["ours"].metric >= 0.98
