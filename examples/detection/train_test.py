"""Twenty steps of the example and, marked slow, the figures on its page."""

import dataclasses
import itertools
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import gradstable as gs
from examples.common.compare import Outcome, compare
from examples.detection import boxes, input_pipeline
from examples.detection.configs.default import Config
from examples.detection.models import Detector
from examples.detection.train import make_schedule, train

SMALL = Config(steps=20, batch_size=16, fault="bad-batch", fault_at=8, test_copies=1)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Config:
    return dataclasses.replace(SMALL, workdir=tmp_path_factory.mktemp("detection"))


@pytest.fixture(scope="module")
def outcomes(tiny: Config) -> dict[str, Outcome]:
    return compare(tiny, train, schedule=make_schedule(tiny))


def test_loss_falls_through_bad_batches(outcomes: dict[str, Outcome]) -> None:
    ours = outcomes["ours"]
    assert ours.losses.shape == (20,)
    assert ours.losses[-5:].mean() < ours.losses[:5].mean()
    assert ours.rejected >= 1
    assert 0.0 < ours.metric < 1.0


def test_bad_batches_break_bare(tiny: Config, outcomes: dict[str, Outcome]) -> None:
    assert outcomes
    norms = gs.telemetry.read_run(tiny.workdir / "bare.jsonl").grad_norm
    assert np.isfinite(norms[:7]).all()
    # Not the loss: a ReLU can turn NaN into zero, and then the loss of a dead network is finite.
    assert not np.isfinite(norms[-5:]).any()


def test_shapes_of_the_network() -> None:
    model = nnx.eval_shape(lambda: Detector(dtype=jnp.float16, rngs=nnx.Rngs(0)))
    image = jax.ShapeDtypeStruct((6, 32, 32, 1), jnp.float32)
    logits, box = nnx.eval_shape(lambda m, x: m(x), model, image)
    assert (logits.shape, box.shape) == ((6, 10), (6, 4))
    assert logits.dtype == box.dtype == jnp.float32


def test_scenes_hold_what_their_boxes_say() -> None:
    digits, unseen = input_pipeline.load(seed=0)
    assert (len(digits.label), len(unseen.label)) == (1400, 397)
    assert all(crop.max(axis=0)[[0, -1]].min() > 0.2 for crop in digits.crops)
    batch = input_pipeline.test_set(unseen, copies=1, seed=0)
    assert batch.image.shape == (397, 32, 32, 1)
    assert {part.dtype for part in batch} == {np.dtype("float32"), np.dtype("int32")}
    center, size = batch.box[:, :2] * 32, batch.box[:, 2:] * 32
    assert (center - size / 2 >= 0).all()
    assert (center + size / 2 <= 32).all()
    inside, outside = [], []
    for image, (x, y), (w, h) in zip(batch.image, center, size, strict=True):
        left, top = round(x - w / 2), round(y - h / 2)
        where = np.zeros(image.shape, bool)
        where[top : round(top + h), left : round(left + w)] = True
        inside.append(image[where].mean())
        outside.append(image[~where].mean())
    assert np.mean(inside) > 2 * np.mean(outside)


def test_batches_are_the_same_for_a_seed_and_never_twice_in_a_run() -> None:
    digits, _ = input_pipeline.load(seed=0)
    first, second = itertools.islice(input_pipeline.batches(digits, size=4, seed=1), 2)
    again = next(input_pipeline.batches(digits, size=4, seed=1))
    np.testing.assert_array_equal(first.image, again.image)
    assert (first.image != second.image).any()


def test_iou_and_giou_of_boxes_that_can_be_counted_by_hand() -> None:
    one = jnp.array([[0.25, 0.25, 0.5, 0.5]] * 3)
    other = jnp.array(
        [
            [0.25, 0.25, 0.5, 0.5],  # the same
            [0.5, 0.25, 0.5, 0.5],  # shifted by half: a third is shared, no space is empty
            [0.75, 0.75, 0.5, 0.5],  # touching at a corner: half of the enclosing box is empty
        ]
    )
    np.testing.assert_allclose(boxes.iou(one, other), [1.0, 1 / 3, 0.0], atol=1e-6)
    np.testing.assert_allclose(boxes.giou(one, other), [1.0, 1 / 3, -0.5], atol=1e-6)


@pytest.mark.parametrize("kind", ["smooth-l1", "giou"])
def test_a_box_loss_is_least_at_the_target_and_slopes_toward_it_from_afar(
    kind: boxes.BoxLoss,
) -> None:
    target = jnp.array([0.2, 0.2, 0.1, 0.1])
    far = jnp.array([0.8, 0.7, 0.1, 0.1])

    def loss(box: jax.Array) -> jax.Array:
        return boxes.box_loss(kind, box, target)

    np.testing.assert_allclose(loss(target), 0.0, atol=1e-6)
    slope = jax.grad(loss)(far)
    assert slope[0] > 0
    assert slope[1] > 0
    assert np.isfinite(jax.grad(loss)(jnp.zeros(4))).all()


@pytest.mark.slow
def test_iou_at_full_length(tmp_path: Path) -> None:
    config = Config(optimizer="ours", workdir=tmp_path)
    assert compare(config, train, schedule=make_schedule(config))["ours"].metric >= 0.72
