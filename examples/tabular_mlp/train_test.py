"""The example learns, survives faults, and performs as its page says."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

import gradstable as gs
from examples.common.compare import Outcome, compare
from examples.tabular_mlp import input_pipeline
from examples.tabular_mlp.configs.default import Config, Dataset
from examples.tabular_mlp.train import make_model, make_schedule, train


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Config:
    return Config(
        steps=20,
        hidden=8,
        batch_size=32,
        learning_rate=1e-2,
        fault="bad-batch",
        fault_at=8,
        dataset="article",
        workdir=tmp_path_factory.mktemp("tabular_mlp"),
    )


@pytest.fixture(scope="module")
def outcomes(tiny: Config) -> dict[str, Outcome]:
    return compare(tiny, train, schedule=make_schedule(tiny))


def test_loss_falls_through_bad_batches(tiny: Config, outcomes: dict[str, Outcome]) -> None:
    ours = outcomes["ours"]
    assert ours.losses[-5:].mean() < ours.losses[:5].mean()
    assert ours.rejected >= 1
    assert gs.telemetry.read_run(tiny.workdir / "ours.jsonl").rejected.sum() == ours.rejected


def test_bad_batches_break_bare(outcomes: dict[str, Outcome]) -> None:
    assert np.isfinite(outcomes["bare"].losses[:9]).all()
    assert np.isnan(outcomes["bare"].losses[-10:]).all()


@pytest.mark.parametrize(
    ("dataset", "shape", "classes"), [("breast_cancer", (427, 30), 2), ("article", (2250, 20), 10)]
)
def test_shapes(dataset: Dataset, shape: tuple[int, int], classes: int) -> None:
    rows, test = input_pipeline.load(dataset, seed=0)
    assert rows.x.shape == shape
    assert set(test.label) == set(range(classes))
    np.testing.assert_allclose(rows.x.mean(axis=0), 0.0, atol=1e-5)
    np.testing.assert_allclose(rows.x.std(axis=0), 1.0, rtol=1e-4)
    batch = next(input_pipeline.batches(rows, steps=1, batch_size=32, seed=0))
    model = make_model(Config(dataset=dataset, fault="fp16"), rows)
    logits = model(jnp.asarray(batch.x))
    assert logits.shape == (32, classes)
    assert logits.dtype == np.float32


@pytest.mark.slow
@pytest.mark.parametrize(("dataset", "least"), [("breast_cancer", 0.96), ("article", 0.94)])
def test_accuracy_at_full_length(dataset: Dataset, least: float, tiny: Config) -> None:
    config = dataclasses.replace(
        Config(dataset=dataset, optimizer="ours"), workdir=tiny.workdir / dataset
    )
    assert compare(config, train, schedule=make_schedule(config))["ours"].metric >= least
