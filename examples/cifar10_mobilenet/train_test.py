"""The example's networks and, marked slow, twenty steps of it and the figures on its page."""

import dataclasses
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import gradstable as gs
from examples.cifar10_mobilenet import input_pipeline, models
from examples.cifar10_mobilenet.configs.default import Config
from examples.cifar10_mobilenet.train import make_schedule, train
from examples.common.compare import Outcome, compare

SMALL = Config(
    model="five-conv",
    width=0.25,
    steps=20,
    batch_size=32,
    augment=False,
    fault="bad-batch",
    fault_at=8,
)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Config:
    return dataclasses.replace(SMALL, workdir=tmp_path_factory.mktemp("cifar10_mobilenet"))


@pytest.fixture(scope="module")
def outcomes(tiny: Config) -> dict[str, Outcome]:
    """Train with 96 stand-in images, and clear them before another test loads images."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(input_pipeline, "STAND_IN", (96, 40))
        input_pipeline.load.cache_clear()
        made = compare(tiny, train, schedule=make_schedule(tiny))
    input_pipeline.load.cache_clear()
    return made


@pytest.mark.slow
def test_loss_falls_through_bad_batches(outcomes: dict[str, Outcome]) -> None:
    ours = outcomes["ours"]
    assert ours.losses.shape == (20,)
    assert ours.losses[-5:].mean() < ours.losses[:5].mean()
    assert ours.rejected >= 1
    assert "NaN or infinite" in ours.explanation


@pytest.mark.slow
def test_bad_batches_break_bare(tiny: Config, outcomes: dict[str, Outcome]) -> None:
    assert outcomes
    norms = gs.telemetry.read_run(tiny.workdir / "bare.jsonl").grad_norm
    assert np.isfinite(norms[:7]).all()
    # Not the loss: a ReLU can turn NaN into zero, and then the loss of a dead network is finite.
    assert not np.isfinite(norms[-5:]).any()


@pytest.mark.slow
def test_run_is_recorded_and_names_its_data(tiny: Config, outcomes: dict[str, Outcome]) -> None:
    run = gs.telemetry.read_run(tiny.workdir / "ours.jsonl")
    assert len(run.step) == tiny.steps
    assert run.scalars["test_accuracy"].value[-1] == pytest.approx(outcomes["ours"].metric)
    assert "stand-in" in outcomes["ours"].metric_name


@pytest.mark.parametrize("name", ["mobilenet", "five-conv"])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float16])
def test_shapes_of_the_networks(name: models.Name, dtype: Any) -> None:
    model = nnx.eval_shape(lambda: models.build(name, width=0.5, dtype=dtype, seed=0))
    image = jax.ShapeDtypeStruct((6, 32, 32, 3), jnp.float32)
    logits = nnx.eval_shape(lambda m, x: m(x), model, image)
    assert logits.shape == (6, models.CLASSES)
    assert logits.dtype == jnp.float32
    assert {p.dtype for p in jax.tree.leaves(nnx.state(model, nnx.Param))} == {
        jnp.dtype(jnp.float32)
    }


def test_a_depthwise_convolution_is_a_grouped_one() -> None:
    layer = models.DepthwiseConv(8, stride=2, dtype=jnp.float32, rngs=nnx.Rngs(0))
    image = jax.random.normal(jax.random.key(1), (2, 6, 6, 8))
    grouped = jax.lax.conv_general_dilated(
        image,
        layer.kernel[...],
        (2, 2),
        [(1, 1), (1, 1)],
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=8,
    )
    mine = nnx.jit(models.DepthwiseConv.__call__)(layer, image)
    np.testing.assert_allclose(mine, grouped, rtol=1e-5, atol=1e-5)


def test_no_network_keeps_running_statistics() -> None:
    for name in ("mobilenet", "five-conv"):
        model = nnx.eval_shape(lambda name=name: models.build(name, width=0.5, dtype=None, seed=0))
        assert not jax.tree.leaves(nnx.state(model, nnx.BatchStat))


def test_widths_round_to_what_a_group_norm_can_divide() -> None:
    assert [models.channels(32, w) for w in (0.01, 0.25, 0.5, 0.6, 1.0)] == [8, 8, 16, 16, 32]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "least"), [("mobilenet", 0.82), ("five-conv", 0.9)])
def test_accuracy_on_the_stand_in_at_full_length(
    name: models.Name, least: float, tmp_path: Path
) -> None:
    config = Config(model=name, optimizer="ours", workdir=tmp_path)
    assert compare(config, train, schedule=make_schedule(config))["ours"].metric >= least
