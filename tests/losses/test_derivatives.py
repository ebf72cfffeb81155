"""Every loss by every argument that is a number, against differences of its oracle in float64."""

import inspect
import operator

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradstable as gs
from tests.losses.points import POINTS, Point
from tests.oracles.losses import slopes_by
from tests.registry import entries

NO_LOSSES = {"kernels_only": "returns bools"}
# Arguments that are arrays and yet nothing to differentiate by.
NO_NUMBERS = {"where", "key"}


def losses() -> list[str]:
    names = [entry.name.partition(".")[2] for entry in entries()]
    return [name for name in names if name and hasattr(gs.losses, name)]


@pytest.mark.parametrize("name", losses())
def test_every_loss_has_points_for_every_argument(name: str) -> None:
    """A loss that is registered, or an argument that is new, is differentiated or fails here."""
    if name in NO_LOSSES:
        return
    parameters = inspect.signature(operator.attrgetter(name)(gs.losses)).parameters.values()
    numbers = {
        parameter.name
        for parameter in parameters
        if any(kind in str(parameter.annotation) for kind in ("Array", "Tree", "Params"))
        and "Callable" not in str(parameter.annotation)
    }
    tried = [set(point.at) - point.through for point in POINTS if point.name == name]
    assert set().union(*tried) == numbers - NO_NUMBERS


@pytest.mark.parametrize("point", POINTS, ids=str)
def test_derivative_is_that_of_the_oracle_both_ways(point: Point) -> None:
    rng = np.random.default_rng(1)
    with jax.enable_x64(True):
        numbers = {name: jnp.asarray(value, jnp.float64) for name, value in point.at.items()}
        value, push = jax.linearize(lambda numbers: point.loss(**numbers), numbers)
        assert value.dtype == jnp.float64
        np.testing.assert_allclose(value, point.oracle(**point.at), rtol=1e-6, atol=1e-6)
        share = rng.uniform(0.5, 1.5, value.shape)
        (slopes,) = jax.linear_transpose(push, numbers)(jnp.asarray(share))
        moves = {name: rng.normal(size=number.shape) for name, number in point.at.items()}
        moved = push(jax.tree.map(jnp.asarray, moves))
    along = 0.0
    for name, found in slopes.items():
        # At a kink they give the middle of the subgradients, and so do we: 0 for a norm at 0.
        each = slopes_by(point.oracle, dict(point.at), name)
        expected = np.tensordot(share, each, axes=share.ndim)
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=2e-5, err_msg=name)
        along = along + np.tensordot(each, moves[name], axes=moves[name].ndim)
    np.testing.assert_allclose(moved, along, rtol=1e-5, atol=2e-5)


def test_pitfall_a_label_of_0_has_a_derivative() -> None:
    """It was told from others by its value, and a select on a value cuts the slope by it."""
    logits = jnp.asarray([3.0, 1.0, 0.0])
    slope = jax.grad(lambda y: gs.losses.softmax_cross_entropy(logits, y))(jnp.asarray([1.0, 0, 0]))
    np.testing.assert_allclose(slope, [0.169846, 2.169846, 3.169846], rtol=1e-5)


def test_a_masked_class_has_the_derivative_0_by_its_label() -> None:
    """It is infinite, and would be NaN by the logits of a teacher who masks the same class."""
    logits = jnp.asarray([3.0, 1.0, -jnp.inf])

    def distill(teacher: jax.Array) -> jax.Array:
        return gs.losses.softmax_cross_entropy(logits, jax.nn.softmax(teacher))

    assert jnp.isfinite(jax.grad(distill)(jnp.asarray([1.0, 2.0, -jnp.inf]))).all()
    slope = jax.grad(lambda y: gs.losses.softmax_cross_entropy(logits, y))(
        jnp.asarray([0.5, 0.5, 0])
    )
    assert slope[2] == 0
    assert (slope[:2] > 0).all()


def test_slopes_far_out_are_finite_and_right() -> None:
    huge, label = jnp.asarray([3e38, -3e38, jnp.inf]), jnp.asarray([0.0, 1.0, 0.0])
    for loss in (gs.losses.softmax_cross_entropy, gs.losses.sigmoid_binary_cross_entropy):
        by_logits, by_labels = jax.grad(lambda x, y, f=loss: f(x, y).sum(), argnums=(0, 1))(
            huge, label
        )
        assert jnp.isfinite(by_logits).all()
        assert jnp.isfinite(by_labels).all()
        assert by_logits[1:].tolist() == [-1, 1]
    of_cap = jax.grad(lambda cap: gs.losses.soft_cap(huge, cap=cap).sum())(2.0)
    assert of_cap == 1.0  # twice the cap less once


def _is_finite(point: Point) -> bool:
    numbers = (*point.at.values(), point.oracle(**point.at))
    return all(np.isfinite(number).all() for number in numbers)


@pytest.mark.parametrize("point", [*filter(_is_finite, POINTS)], ids=str)
def test_pitfall_no_infinity_on_the_way_to_a_finite_derivative(point: Point) -> None:
    """``jax_debug_infs`` stopped at the infinity that impossible labels would have added."""
    numbers = {name: jnp.asarray(value, jnp.float32) for name, value in point.at.items()}
    with jax.debug_nans(True), jax.debug_infs(True):
        jax.grad(lambda numbers: jnp.sum(point.loss(**numbers)))(numbers)
