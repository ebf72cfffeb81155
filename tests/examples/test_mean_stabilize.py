"""The worked example has the numbers that it is about."""

import jax
import numpy as np
import pytest

import gradstable as gs
from examples import mean_stabilize as example


@pytest.fixture(scope="module")
def problem() -> example.Problem:
    return example.article()


@pytest.fixture(scope="module")
def gradient(problem: example.Problem) -> jax.Array:
    return example.broken_gradient(problem)


def test_gradient_of_batch_20_has_the_statistics_to_six_digits(gradient: jax.Array) -> None:
    g = np.asarray(gradient, np.float64)
    assert g.mean() == pytest.approx(611.461, abs=5e-4)
    assert g.std() == pytest.approx(12.6965, abs=5e-5)


def test_bare_descent_explodes_at_batch_20(problem: example.Problem) -> None:
    losses = example.train(problem, example.contestants(problem)["descent"])
    assert (np.diff(losses[:21]) < 0).all()
    assert losses[20] == pytest.approx(7_000, rel=1e-5)
    assert losses[21] == pytest.approx(1_000_000, rel=1e-5)
    assert (losses[21:] > 990_000).all()


@pytest.mark.parametrize("name", ["mean removed, descent", "mean removed, Adam", "tanh, Adam"])
def test_stabilized_descent_does_not(problem: example.Problem, name: str) -> None:
    losses = example.train(problem, example.contestants(problem)[name])
    assert (np.diff(losses) < 0).all()
    assert losses[-1] < 7_100


def test_adam_alone_walks_to_the_same_place(problem: example.Problem) -> None:
    losses = example.train(problem, example.contestants(problem)["Adam"])
    assert losses[21] < losses[20]
    assert losses[-1] > 1_000_000


def test_where_the_mean_is_the_signal_removing_it_hurts() -> None:
    problem = example.article(common_target=3.0)
    runs = example.contestants(problem)
    bare = example.train(problem, runs["descent"], broken=False)
    stabilized = example.train(problem, runs["mean removed, descent"], broken=False)
    assert bare[0] == stabilized[0] == pytest.approx(934_045, rel=1e-5)
    assert bare[-1] < 50
    common = 0.5 * problem.common_curvature * example.NUM_PARAMS * 3.0**2
    assert stabilized.min() >= common * 0.9999 > 846_000


def test_every_adjustment_is_shown(gradient: jax.Array, capsys: pytest.CaptureFixture[str]) -> None:
    example.show_steps(gradient)
    told = capsys.readouterr().out
    assert "611.4610     12.6965    661.5240" in told
    for adjust in example.ADJUSTMENTS:
        assert f"\n{adjust} " in told
    with pytest.raises(ValueError, match="adjust must be one of") as raised:
        gs.centering.mean_stabilize("all")
    assert all(repr(adjust) in str(raised.value) for adjust in example.ADJUSTMENTS)
