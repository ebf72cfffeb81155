"""The example learns, survives faults, and performs as its page says."""

from pathlib import Path

import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradstable as gs
from examples.common.compare import Outcome, compare
from examples.linen_mlp import input_pipeline
from examples.linen_mlp.configs.default import Config
from examples.linen_mlp.models import CLASSES
from examples.linen_mlp.train import make_schedule, make_state, train


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Config:
    return Config(
        steps=20,
        hidden=16,
        batch_size=32,
        learning_rate=1e-2,
        fault="bad-batch",
        fault_at=8,
        workdir=tmp_path_factory.mktemp("linen_mlp"),
    )


@pytest.fixture(scope="module")
def outcomes(tiny: Config) -> dict[str, Outcome]:
    return compare(tiny, train, schedule=make_schedule(tiny))


def test_loss_falls_through_bad_batches(outcomes: dict[str, Outcome]) -> None:
    ours = outcomes["ours"]
    assert ours.losses[-5:].mean() < ours.losses[:5].mean()
    assert ours.rejected >= 1
    assert "['Dense_" in ours.explanation


def test_bad_batches_break_bare(outcomes: dict[str, Outcome]) -> None:
    assert np.isfinite(outcomes["bare"].losses[:9]).all()
    assert np.isnan(outcomes["bare"].losses[-10:]).all()


def test_optimizer_is_told_the_loss(tiny: Config, outcomes: dict[str, Outcome]) -> None:
    run = gs.telemetry.read_run(tiny.workdir / "ours.jsonl")
    np.testing.assert_allclose(run.loss, outcomes["ours"].losses, rtol=1e-6)


def test_shapes(tiny: Config) -> None:
    rows, test = input_pipeline.load(0)
    assert rows.x.shape == (1437, 64)
    assert len(test.label) == 360
    batch = next(input_pipeline.batches(rows, steps=1, batch_size=32, seed=0))
    state = make_state(tiny, optax.sgd(0.1))
    logits = state.apply_fn({"params": state.params}, jnp.asarray(batch.x), train=False)
    assert logits.shape == (32, CLASSES)


@pytest.mark.slow
def test_accuracy_at_full_length(tmp_path: Path) -> None:
    config = Config(optimizer="ours", workdir=tmp_path)
    assert compare(config, train, schedule=make_schedule(config))["ours"].metric >= 0.97
