"""Every classic recipe: optax's optimizer on a healthy run, and the guard on a broken one."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradstable as gs
from gradstable._src.moments.engine import MAX_SQUARED

Make = Callable[..., optax.GradientTransformation]
SCHEDULE = optax.linear_schedule(1e-2, 1e-3, 20)

# Ours, theirs, options, and how far apart they may be after 30 steps of about 0.01.
AGREE: dict[str, tuple[Make, Make, dict[str, Any], float]] = {
    "sgd": (gs.sgd, optax.sgd, {}, 1e-6),
    "sgd(nesterov)": (gs.sgd, optax.sgd, {"momentum": 0.9, "nesterov": True}, 1e-6),
    "sgd(momentum)": (gs.sgd, optax.sgd, {"momentum": 0.9}, 1e-6),
    "adam": (gs.adam, optax.adam, {}, 1e-5),
    "adam(all)": (gs.adam, optax.adam, {"b2": 0.95, "eps_root": 1e-6, "nesterov": True}, 1e-5),
    "adamw": (gs.adamw, optax.adamw, {"weight_decay": 0.1, "mask": {"w": True, "b": False}}, 1e-5),
    "nadam": (gs.nadam, optax.nadam, {}, 1e-5),
    "nadamw": (gs.nadamw, optax.nadamw, {"weight_decay": 0.1}, 1e-5),
    "amsgrad": (gs.amsgrad, optax.amsgrad, {}, 1e-5),
    "adamax": (gs.adamax, optax.adamax, {}, 1e-5),
    # optax loses digits of rho_t: its steps are up to 0.6 % too short.
    "radam": (gs.radam, optax.radam, {}, 1e-4),
    "adabelief": (gs.adabelief, optax.adabelief, {}, 1e-5),
    # optax starts the first moment at 1e-6.
    "yogi": (gs.yogi, optax.yogi, {}, 1e-5),
    "rmsprop": (gs.rmsprop, optax.rmsprop, {}, 1e-5),
    "rmsprop(all)": (
        gs.rmsprop,
        optax.rmsprop,
        {"decay": 0.99, "initial_scale": 1.0, "eps_in_sqrt": False, "momentum": 0.9},
        1e-5,
    ),
    "rmsprop(centered)": (
        gs.rmsprop,
        optax.rmsprop,
        {"centered": True, "eps": 1e-2, "momentum": 0.9, "nesterov": True},
        1e-5,
    ),
    "adagrad": (gs.adagrad, optax.adagrad, {}, 1e-5),
    "adadelta": (gs.adadelta, optax.adadelta, {"weight_decay": 0.1, "eps": 0.1}, 1e-5),
}


def healthy(steps: int = 30) -> dict[str, jax.Array]:
    rng = np.random.default_rng(0)
    return {
        "w": jnp.asarray(rng.normal(size=(steps, 4, 3)), jnp.float32),
        "b": jnp.asarray(rng.normal(size=(steps, 3)), jnp.float32),
    }


def trainer(tx: optax.GradientTransformation, gradients: Any) -> tuple[Any, Any]:
    """Return a compiled run over gradients, and where it starts: parameters and state."""
    params = jax.tree.map(lambda g: jnp.ones(g.shape[1:], g.dtype), gradients)

    def body(carry: Any, g: Any) -> tuple[Any, None]:
        params, state = carry
        updates, state = tx.update(g, state, params)
        return (optax.apply_updates(params, updates), state), None

    run = jax.jit(lambda carry, gradients: jax.lax.scan(body, carry, gradients)[0])
    return run, (params, tx.init(params))


def train(tx: optax.GradientTransformation, gradients: Any) -> tuple[Any, Any]:
    run, start = trainer(tx, gradients)
    return run(start, gradients)


@pytest.mark.parametrize("name", AGREE)
def test_equals_optax_on_a_healthy_run(name: str) -> None:
    ours, theirs, options, tolerance = AGREE[name]
    params, state = train(ours(SCHEDULE, **options), healthy())
    expected, _ = train(theirs(SCHEDULE, **options), healthy())
    assert gs.health(state).accepted == 30
    for leaf in params:
        np.testing.assert_allclose(params[leaf], expected[leaf], rtol=0, atol=tolerance)
        assert np.abs(expected[leaf] - 1.0).max() > 1e-3


# One of each kind of composition; the storm takes them all.
MAKERS: dict[str, Callable[[], optax.GradientTransformation]] = {
    "sgd": lambda: gs.sgd(SCHEDULE, momentum=0.9),
    "nadamw": lambda: gs.nadamw(SCHEDULE, momentum_decay=4e-3),
    "rmsprop": lambda: gs.rmsprop(SCHEDULE, momentum=0.9, bias_correction=True),
    "adadelta": lambda: gs.adadelta(SCHEDULE, weight_decay=SCHEDULE),
}


@pytest.mark.parametrize("name", MAKERS)
def test_bad_batches_are_as_if_they_had_never_been(name: str) -> None:
    """Schedule, counters and moments included."""
    good = healthy()
    faults = jnp.asarray([np.nan, np.inf, -np.inf, 3e38, 1e30] * 6, jnp.float32)
    bad = {**good, "b": good["b"].at[:, 0].set(faults)}
    mixed = jax.tree.map(lambda x, y: jnp.stack([x, y], 1).reshape(60, *x.shape[1:]), good, bad)
    apart = jax.tree.map(lambda x, y: jnp.concatenate([x, y]), good, bad)
    run, start = trainer(MAKERS[name](), good)
    got, state = run(start, mixed)
    expected, _ = run(start, apart)
    assert gs.health(state).accepted == gs.health(state).rejected == 30
    jax.tree.map(np.testing.assert_array_equal, got, expected)


def test_momentum_schedule_of_nadam_changes_its_course() -> None:
    def course(momentum_decay: float | None) -> np.ndarray:
        return np.asarray(train(gs.nadam(0.01, momentum_decay=momentum_decay), healthy())[0]["w"])

    flat = course(None)
    assert np.abs(flat - course(4e-3)).max() > 1e-3
    np.testing.assert_allclose(flat, course(1e6), atol=1e-5)


def test_rules_decide() -> None:
    tx = gs.sgd(1.0, rules=(gs.rules.global_norm(1.0),))
    params = jnp.zeros(2)
    updates, state = tx.update(jnp.asarray([3.0, 4.0]), tx.init(params), params)
    np.testing.assert_allclose(np.asarray(updates), [-0.6, -0.8], rtol=1e-6)
    assert gs.health(state).clipped == 1


@pytest.mark.parametrize("make", [lambda: gs.rmsprop(0.1, momentum=0.9), lambda: gs.adadelta(1.0)])
def test_estimators_do_not_look_for_what_the_guard_keeps_out(
    make: Callable[[], optax.GradientTransformation],
) -> None:
    def text(tx: optax.GradientTransformation) -> str:
        params = jnp.ones(4)
        return str(jax.make_jaxpr(tx.update)(params, tx.init(params), params))

    limit = f"{MAX_SQUARED:.14e}"[:8]
    assert limit in text(gs.moments.trace(0.9))
    assert limit not in text(make())
