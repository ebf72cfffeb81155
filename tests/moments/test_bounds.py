"""How wide a step can be at most: the bounds of the docstrings, and sequences that reach them."""

import math
from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradstable as gs
from tests.moments.running import directions, runs

STEPS = 150
LATE = 100_000  # a count at which no bias is left to correct


def storms(seed: int = 0) -> np.ndarray:
    """Return gradients of all sizes, in any order."""
    rng = np.random.default_rng(seed)
    return (rng.normal(size=(STEPS, 50)) * np.exp(rng.normal(size=(STEPS, 50)) * 8)).astype("f4")


def last_step(
    tx: optax.GradientTransformation, weights: np.ndarray, b2: float, count: int = LATE
) -> float:
    """Return the last step when the gradient k steps before has the given weight in it.

    By Cauchy and Schwarz the worst gradients are the weights over ``b2**k``. They come after a
    silence, so the moments are zero before.
    """
    worst = weights / b2 ** np.arange(len(weights))
    gradients = (worst / worst[0])[::-1, None].astype(np.float32)
    state = tx.init(gradients[0])
    state = state._replace(count=jnp.asarray(count - len(weights), jnp.int32))
    return float(directions(tx, gradients, state)[-1, 0])


@pytest.mark.parametrize(
    ("b1", "b2", "bound"),
    [(0.9, 0.999, 7.27), (0.9, 0.99, 2.35), (0.9, 0.98, 1.70), (0.9, 0.95, 1.17), (0.9, 0.9, 1.0)],
)
def test_adam_reaches_its_bound_and_never_passes_it(b1: float, b2: float, bound: float) -> None:
    exact = (1 - b1) / math.sqrt(1 - b2) / math.sqrt(1 - b1**2 / b2)
    assert exact == pytest.approx(bound, abs=0.006)
    tx = gs.moments.scale_by_adam(b1=b1, b2=b2)
    assert last_step(tx, b1 ** np.arange(STEPS), b2) == pytest.approx(exact, rel=1e-4)
    assert np.abs(directions(tx, storms())).max() <= exact * (1 + 1e-5)


@pytest.mark.parametrize(("b2", "bound"), [(0.999, 8.42), (0.95, 1.29)])
def test_adam_that_looks_ahead_reaches_its_bound(b2: float, bound: float) -> None:
    b1 = 0.9
    weights = b1 * (1 - b1) * b1 ** np.arange(STEPS)
    weights[0] += 1 - b1
    exact = math.sqrt(np.sum(weights**2 / b2 ** np.arange(STEPS)) / (1 - b2))
    assert exact == pytest.approx(bound, abs=0.006)
    tx = gs.moments.scale_by_adam(b2=b2, nesterov=True)
    assert last_step(tx, weights, b2) == pytest.approx(exact, rel=1e-4)
    first = b1 * (1 - b1) / (1 - b1**2) + 1  # looking ahead from the first step: 1.47
    assert np.abs(directions(tx, storms())).max() <= max(exact, first) * (1 + 1e-5)


@pytest.mark.parametrize(("b2", "step", "bound"), [(0.999, 1890, 14.61), (0.95, 108, 2.67)])
def test_nadam_reaches_its_bound(b2: float, step: int, bound: float) -> None:
    def weights(t: int) -> np.ndarray:
        momentum = 0.9 * (1 - 0.5 * 0.96 ** (4e-3 * np.arange(1, t + 2)))
        product, product_ahead = np.prod(momentum[:-1]), np.prod(momentum)
        of_mu = momentum[-1] / (1 - product_ahead) * 0.1 * 0.9 ** np.arange(min(t, STEPS))
        of_mu[0] += (1 - momentum[-2]) / (1 - product)
        return of_mu

    def exact(t: int) -> float:
        square = np.sum(weights(t) ** 2 / b2 ** np.arange(min(t, STEPS)))
        return math.sqrt(square * (1 - b2**t) / (1 - b2))

    assert exact(step) == pytest.approx(bound, abs=0.006)
    assert max(exact(t) for t in range(1, 4 * step, 7)) <= exact(step) * (1 + 1e-6)
    tx = gs.moments.scale_by_nadam(b2=b2)
    assert last_step(tx, weights(step), b2, step) == pytest.approx(exact(step), rel=1e-3)
    assert np.abs(directions(tx, storms())).max() <= bound


BOUNDED: dict[str, tuple[Callable[[], optax.GradientTransformation], float, np.ndarray]] = {
    # One gradient after silence: all of nu is its own.
    "rms": (gs.moments.scale_by_rms, 10**0.5, runs((1e3, 1))),
    "rms, decay 0.99": (lambda: gs.moments.scale_by_rms(decay=0.99), 10.0, runs((1e3, 1))),
    "rss": (gs.moments.scale_by_rss, 1.0, runs((1e6, 1))),
    # Falling by b2: every gradient of the past is as large as the maximum remembers.
    "adamax": (
        gs.moments.scale_by_adamax,
        0.1 / (1 - 0.9 / 0.999),
        0.999 ** np.arange(STEPS, dtype=np.float32)[:, None],
    ),
    "adamax, b2 0.95": (
        lambda: gs.moments.scale_by_adamax(b2=0.95),
        0.1 / (1 - 0.9 / 0.95),
        0.95 ** np.arange(STEPS, dtype=np.float32)[:, None],
    ),
}


@pytest.mark.parametrize("name", BOUNDED)
def test_bound_holds_and_is_reached(name: str) -> None:
    make, bound, worst = BOUNDED[name]
    assert np.abs(directions(make(), storms())).max() <= bound * (1 + 1e-5)
    assert directions(make(), worst)[-1, 0] == pytest.approx(bound, rel=1e-3)


def test_amsgrad_keeps_the_bound_of_adam() -> None:
    for late in (False, True):
        tx = gs.moments.scale_by_amsgrad(correct_maximum=late)
        assert np.abs(directions(tx, storms())).max() <= 7.28


def test_radam_keeps_the_bound_of_adam_from_the_sixth_step_on() -> None:
    for b2 in (0.999, 0.95):
        got = np.abs(directions(gs.moments.scale_by_radam(b2=b2), storms()))
        bound = 0.1 / math.sqrt(1 - b2) / math.sqrt(1 - 0.81 / b2)
        assert got[5:].max() <= bound
        assert got[:5].max() > 1e3


def test_yogi_keeps_its_bound() -> None:
    """Growing by 1 / 0.9 it reaches 7.25; nothing that was tried comes near 31.8."""
    growth = (1 / 0.9) ** np.arange(STEPS)[:, None]
    tx = gs.moments.scale_by_yogi(eps=0.0, initial_accumulator_value=0.0)
    state = tx.init(growth[0].astype(np.float32))
    late = state._replace(count=jnp.asarray(LATE, jnp.int32))
    assert directions(tx, growth.astype(np.float32), late)[-1, 0] == pytest.approx(7.25, abs=0.01)
    bound = 0.1 / math.sqrt(1e-3) / (1 - 0.9 / math.sqrt(0.999))
    assert bound == pytest.approx(31.8, abs=0.1)
    assert np.abs(directions(tx, storms())).max() <= 7.25


def test_ema_is_never_larger_than_the_largest_gradient() -> None:
    gradients = storms()
    largest = np.maximum.accumulate(np.abs(gradients), axis=0)
    assert (np.abs(directions(gs.moments.ema(0.9), gradients)) <= largest * (1 + 1e-5)).all()


def test_adadelta_is_bounded_by_the_steps_before() -> None:
    got = directions(gs.moments.scale_by_adadelta(), storms()).astype(np.float64)
    e_x = np.zeros(50)
    for step in got:
        assert (np.abs(step) <= np.sqrt((e_x + 1e-6) / 0.1) * (1 + 1e-5)).all()
        e_x = 0.9 * e_x + 0.1 * step**2
