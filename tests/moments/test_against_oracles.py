"""Every classic estimator: against float64 from the paper, in all precisions, and against optax."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import gradstable as gs
from tests.moments.running import directions
from tests.oracles import adam_kin, averages, square_root_methods

Pair = tuple[Callable[..., optax.GradientTransformation], Callable[..., np.ndarray]]

PAIRS: dict[str, Pair] = {
    "ema": (gs.moments.ema, averages.ema),
    "trace": (gs.moments.trace, averages.trace),
    "rms": (gs.moments.scale_by_rms, square_root_methods.rmsprop),
    "rss": (gs.moments.scale_by_rss, square_root_methods.adagrad),
    "adadelta": (gs.moments.scale_by_adadelta, square_root_methods.adadelta),
    "adamax": (gs.moments.scale_by_adamax, adam_kin.adamax),
    "amsgrad": (gs.moments.scale_by_amsgrad, adam_kin.amsgrad),
    "nadam": (gs.moments.scale_by_nadam, adam_kin.nadam),
    "radam": (gs.moments.scale_by_radam, adam_kin.radam),
    "belief": (gs.moments.scale_by_belief, adam_kin.adabelief),
    "yogi": (gs.moments.scale_by_yogi, adam_kin.yogi),
}
REQUIRED: dict[str, dict[str, Any]] = {"ema": {"decay": 0.9}, "trace": {"decay": 0.9}}
DEFAULTS = [(name, REQUIRED.get(name, {})) for name in PAIRS]
OPTIONS: list[tuple[str, dict[str, Any]]] = [
    *DEFAULTS,
    ("ema", {"decay": 0.99, "debias": False}),
    ("trace", {"decay": 0.99, "nesterov": True}),
    ("rms", {"decay": 0.99, "eps_in_sqrt": False, "initial_scale": 1.0}),
    ("rms", {"bias_correction": True, "eps": 1e-3}),
    ("rms", {"centered": True, "eps": 1.0, "decay": 0.5}),
    ("rms", {"centered": True, "bias_correction": True, "eps": 1e-3}),
    ("rss", {"initial_accumulator_value": 0.0, "eps": 1e-12}),
    ("adadelta", {"rho": 0.95, "eps": 1e-3}),
    ("adamax", {"b1": 0.5, "b2": 0.9, "eps": 1e-2}),
    ("amsgrad", {"correct_maximum": True, "b2": 0.9}),
    ("amsgrad", {"bias_correction_mu": False, "bias_correction_nu": False, "eps_root": 1e-4}),
    ("nadam", {"b1": 0.99, "momentum_decay": 0.1, "b2": 0.95, "eps_root": 1e-4}),
    ("nadam", {"momentum_decay": 0.0}),
    ("nadam", {"b1": 0.0}),
    ("radam", {"b2": 0.95, "nesterov": True, "eps_root": 1e-4}),
    ("radam", {"b2": 0.5}),
    ("radam", {"b2": 0.99999, "threshold": 4.0}),
    ("belief", {"nesterov": True, "eps": 1e-3, "eps_root": 1e-6}),
    ("yogi", {"b2": 0.9, "eps_root": 1e-4, "initial_accumulator_value": 1.0}),
]


def noisy(seed: int = 0, steps: int = 200) -> np.ndarray:
    """Return normal gradients with six parameters of scales 1e-6 to 1e6."""
    rng = np.random.default_rng(seed)
    return (rng.normal(size=(steps, 6)) * np.logspace(-6, 6, 6)).astype(np.float32)


def relative(got: np.ndarray, expected: np.ndarray) -> float:
    """Return the largest deviation of a parameter over the largest step that it makes."""
    return float(np.max(np.abs(got - expected).max(0) / np.abs(expected).max(0)))


@pytest.mark.parametrize(("name", "options"), OPTIONS)
def test_equals_the_float64_oracle(name: str, options: dict[str, Any]) -> None:
    ours, oracle = PAIRS[name]
    gradients = noisy()
    assert relative(directions(ours(**options), gradients), oracle(gradients, **options)) < 1e-5


@pytest.mark.parametrize(("dtype", "tolerance"), [("bfloat16", 2**-8), ("float16", 2**-11)])
@pytest.mark.parametrize(("name", "options"), DEFAULTS)
def test_low_precision_costs_one_rounding(
    name: str, options: dict[str, Any], dtype: str, tolerance: float
) -> None:
    ours, oracle = PAIRS[name]
    gradients = (noisy(1, 50) / np.logspace(-6, 6, 6) * np.logspace(-2, 2, 6)).astype(dtype)
    got = directions(ours(**options), gradients)
    assert got.dtype == gradients.dtype
    expected = oracle(gradients.astype(np.float64), **options)
    assert relative(got.astype(np.float64), expected) < 1.01 * tolerance


THEIRS: dict[str, Callable[..., optax.GradientTransformation]] = {
    "ema": optax.ema,
    "trace": optax.trace,
    "rms": optax.scale_by_rms,
    "rss": optax.scale_by_rss,
    "adadelta": optax.scale_by_adadelta,
    "adamax": optax.scale_by_adamax,
    "amsgrad": optax.scale_by_amsgrad,
    "radam": optax.scale_by_radam,
    "belief": optax.scale_by_belief,
    "yogi": optax.scale_by_yogi,
}


@pytest.mark.parametrize("name", THEIRS)
def test_equals_optax_on_healthy_float32(name: str) -> None:
    """Within 1e-4; RAdam within 1e-2, since optax loses digits of rho."""
    options = REQUIRED.get(name, {})
    gradients = np.random.default_rng(2).normal(size=(100, 8)).astype(np.float32)
    ours, theirs = PAIRS[name][0](**options), THEIRS[name](**options)
    assert type(ours.init(gradients[0])) is type(theirs.init(gradients[0]))
    deviation = relative(directions(ours, gradients), directions(theirs, gradients))
    assert deviation < (1e-2 if name == "radam" else 1e-4)


@pytest.mark.parametrize(("name", "options"), DEFAULTS)
def test_complex_gradients_turn_with_their_phase(name: str, options: dict[str, Any]) -> None:
    tx = PAIRS[name][0](**options)
    real, phase = noisy(3, 20)[:, 2:4], np.complex64(np.exp(0.7j))
    np.testing.assert_allclose(
        directions(tx, real * phase), directions(tx, real) * phase, rtol=1e-4, atol=1e-6
    )


@pytest.mark.parametrize("bad", [np.nan, 3e38])
@pytest.mark.parametrize(("name", "options"), DEFAULTS)
def test_pitfall_an_unsound_entry_leaves_its_statistics_alone(
    name: str, options: dict[str, Any], bad: float
) -> None:
    tx = PAIRS[name][0](**options)
    update = jax.jit(tx.update)
    g = jnp.asarray([1.0, 2.0])
    state = tx.init(g)
    for sign in (1.0, -0.5, 0.25):
        _, state = update(sign * g, state)
    updates, after = update(g.at[0].set(bad), state)
    assert jnp.isfinite(updates).all()
    pairs = zip(jax.tree.leaves(state), jax.tree.leaves(after), strict=True)
    changed = [new != old for old, new in pairs if new.ndim]
    assert not any(leaf[0] for leaf in changed)
    assert any(leaf[1] for leaf in changed)


# With no constant in their way, and powers of two, these know no unit.
FREE: dict[str, optax.GradientTransformation] = {
    "rms": gs.moments.scale_by_rms(eps=0.0),
    "rss": gs.moments.scale_by_rss(initial_accumulator_value=0.0, eps=0.0),
    "adamax": gs.moments.scale_by_adamax(eps=0.0),
    "amsgrad": gs.moments.scale_by_amsgrad(eps=0.0),
    "nadam": gs.moments.scale_by_nadam(eps=0.0),
    "belief": gs.moments.scale_by_belief(eps=0.0, eps_root=0.0),
    "yogi": gs.moments.scale_by_yogi(eps=0.0, initial_accumulator_value=0.0),
}


@pytest.mark.parametrize("name", FREE)
def test_directions_do_not_depend_on_the_unit_of_the_gradient(name: str) -> None:
    tx = FREE[name]
    gradients = np.random.default_rng(4).normal(size=(30, 3)).astype(np.float32)
    run = jax.jit(lambda g: directions_of(tx, g))
    reference = np.asarray(run(gradients))

    @settings(max_examples=15, deadline=None, derandomize=True)
    @given(st.integers(-30, 30))
    def law(power: int) -> None:
        np.testing.assert_array_equal(run(gradients * np.float32(2.0**power)), reference)

    law()


def directions_of(tx: optax.GradientTransformation, gradients: jax.Array) -> jax.Array:
    def body(state: Any, g: jax.Array) -> tuple[Any, jax.Array]:
        u, state = tx.update(g, state)
        return state, u

    return jax.lax.scan(body, tx.init(gradients[0]), gradients)[1]


def test_limits_are_known_transforms() -> None:
    gradients = noisy(5, 50)[:, 1:]
    identity = [gs.moments.ema(0.0), gs.moments.trace(0.0), gs.moments.trace(0.0, nesterov=True)]
    for tx in identity:
        np.testing.assert_array_equal(directions(tx, gradients), gradients)
    sign = directions(gs.moments.scale_by_rms(decay=0.0, eps=0.0), gradients)
    np.testing.assert_allclose(sign, np.sign(gradients), rtol=1e-6)
    never = directions(gs.moments.scale_by_radam(threshold=1e6), gradients)
    np.testing.assert_allclose(never, directions(gs.moments.ema(0.9), gradients), rtol=1e-6)
    steep = directions(gs.moments.scale_by_nadam(momentum_decay=1e6), gradients)
    flat = directions(gs.moments.scale_by_adam(nesterov=True), gradients)
    assert relative(steep, flat) < 1e-5
    rising = np.cumsum(np.abs(gradients), axis=0)
    assert relative(
        directions(gs.moments.scale_by_amsgrad(), rising), directions(gs.moments.scale_by_adam(),
        rising)
    ) < 1e-5  # fmt: skip
