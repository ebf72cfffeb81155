"""Modern estimators: the float64 oracles, the special cases, optax where it is right, the laws."""

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
from gradstable._src.moments.spam import limit_by_moment
from tests.moments.running import directions
from tests.oracles.adam import adam
from tests.oracles.adam_atan2 import adam_atan2
from tests.oracles.adan import adan
from tests.oracles.ademamix import ademamix, b3_of_paper
from tests.oracles.adopt import adopt
from tests.oracles.cautious import cautious
from tests.oracles.clipped_adam import clipped_adam
from tests.oracles.laprop import laprop
from tests.oracles.lion import lion
from tests.oracles.s3 import s3
from tests.oracles.sophia import sophia
from tests.oracles.spam import spam, stable_spam

Make = Callable[..., optax.GradientTransformation]
Oracle = Callable[..., np.ndarray]


def noise(steps: int = 200, width: int = 6, seed: int = 0) -> np.ndarray:
    """Return normal gradients whose entries have scales from 1e-6 to 1e6."""
    rng = np.random.default_rng(seed)
    return (rng.normal(size=(steps, width)) * np.logspace(-6, 6, width)).astype(np.float32)


def spiky(steps: int, every: int = 37, size: float = 1e4) -> np.ndarray:
    """Return normal gradients with an entry that spikes now and then, another in each spike."""
    gradients = np.random.default_rng(3).normal(size=(steps, 6)).astype(np.float32)
    for k, step in enumerate(range(every, steps, every)):
        gradients[step, k % 6] *= size
    return gradients


SPAM = {"reset_every": 60, "reset_warmup_steps": 25, "warmup_steps": 7, "max_multiple": 100.0}
SPAM_CODE = {"delta_t": 60, "warmup": 25, "grad_accu": 7, "threshold": 100.0}
# Estimator, its options, oracle, its options (None: the same), gradients.
EXACT: dict[str, tuple[Make, dict[str, Any], Oracle, dict[str, Any] | None, np.ndarray]] = {
    "adan": (gs.moments.scale_by_adan, {}, adan, None, noise()),
    "adan(all)": (
        gs.moments.scale_by_adan,
        {"b1": 0.9, "b2": 0.5, "b3": 0.99, "eps": 1e-3, "eps_root": 1e-4},
        adan,
        None,
        noise(),
    ),
    "adopt": (gs.moments.scale_by_adopt, {}, adopt, None, spiky(200)),
    "adopt(no clip)": (
        gs.moments.scale_by_adopt,
        {"use_clipping": False, "b1": 0.5, "b2": 0.99},
        adopt,
        None,
        spiky(200),
    ),
    "laprop": (gs.moments.scale_by_laprop, {}, laprop, None, noise()),
    "laprop(b1 above b2)": (
        gs.moments.scale_by_laprop,
        {"b1": 0.99, "b2": 0.9, "eps": 1e-3},
        laprop,
        None,
        noise(),
    ),
    "adam_atan2": (gs.moments.scale_by_adam_atan2, {}, adam_atan2, None, noise()),
    "adam_atan2(a, b)": (
        gs.moments.scale_by_adam_atan2,
        {"a": 2.0, "b": 3.0},
        adam_atan2,
        None,
        noise(),
    ),
    "ademamix": (gs.moments.scale_by_ademamix, {}, ademamix, {}, noise()),
    "lion": (gs.moments.scale_by_lion, {}, lion, None, noise()),
    "s3": (gs.moments.scale_by_s3, {}, s3, None, noise()),
    "s3(p=1.5)": (gs.moments.scale_by_s3, {"b1": 0.9, "p": 1.5}, s3, None, noise()),
    "spam": (gs.moments.scale_by_spam, SPAM, spam, SPAM_CODE, spiky(200)),
    "spam(defaults)": (gs.moments.scale_by_spam, {}, spam, None, spiky(1100)),
}


@pytest.mark.parametrize("name", EXACT)
def test_equals_the_float64_oracle(name: str) -> None:
    make, options, oracle, theirs, gradients = EXACT[name]
    expected = oracle(gradients, **(options if theirs is None else theirs))
    got = directions(make(**options), gradients)
    np.testing.assert_allclose(got, expected, rtol=2e-5, atol=5e-6)


def test_ademamix_with_both_warm_ups_equals_the_oracle() -> None:
    """A rate of 0.9999 in float32 is exact to 6e-4 of its distance to 1."""
    b3 = gs.moments.half_life_schedule(0.9, transition_steps=150)
    alpha = optax.linear_schedule(0.0, 8.0, 150)
    got = directions(gs.moments.scale_by_ademamix(b3=b3, alpha=alpha), noise())
    expected = ademamix(
        noise(),
        b3=lambda t: b3_of_paper(t, 0.9, 0.9999, 150),
        alpha=lambda t: 8.0 * min(t / 150, 1.0),
    )
    np.testing.assert_allclose(got, expected, rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(got[:100], expected[:100], rtol=2e-4, atol=2e-5)


def test_half_life_schedule_is_that_of_the_paper() -> None:
    schedule = gs.moments.half_life_schedule(0.9, end_value=0.9999, transition_steps=1000)
    for step in (0, 1, 10, 500, 999, 1000, 5000):
        expected = b3_of_paper(step, 0.9, 0.9999, 1000)
        assert float(schedule(step)) == pytest.approx(expected, abs=1e-7)
    half_lives = [np.log(0.5) / np.log(float(schedule(step))) for step in (0, 400, 800)]
    assert half_lives[2] - half_lives[1] == pytest.approx(half_lives[1] - half_lives[0], rel=1e-2)
    assert float(gs.moments.half_life_schedule(0.0, end_value=0.0, transition_steps=5)(3)) == 0.0


def test_sophia_equals_the_oracle_with_a_tree_and_with_a_function() -> None:
    gradients, rng = noise(60), np.random.default_rng(1)
    diagonals = (rng.normal(size=gradients.shape) * np.logspace(-4, 8, 6)).astype(np.float32)
    tx = gs.moments.scale_by_sophia(b2=0.9)

    def run(as_function: bool) -> np.ndarray:
        def body(state: Any, step: tuple[jax.Array, jax.Array]) -> tuple[Any, jax.Array]:
            g, h = step
            hessian = (lambda params: h + 0.0 * params) if as_function else h
            u, state = tx.update(g, state, jnp.zeros(6), hessian=hessian)
            return state, u

        xs = (jnp.asarray(gradients), jnp.asarray(diagonals))
        return np.asarray(jax.jit(lambda s: jax.lax.scan(body, s, xs)[1])(tx.init(jnp.zeros(6))))

    expected = sophia(gradients, diagonals, b2=0.9)
    assert 0.1 < (np.abs(expected) < 1).mean() < 0.9
    np.testing.assert_allclose(run(False), expected, rtol=2e-5, atol=1e-6)
    np.testing.assert_array_equal(run(False), run(True))


def test_stable_adam_equals_the_oracle_in_update_rms_and_decay() -> None:
    gradients = spiky(200, size=100.0)
    params = np.random.default_rng(5).normal(size=6).astype(np.float32)
    tx = gs.moments.scale_by_clipped_adam(weight_decay=0.1)

    def body(state: Any, g: jax.Array) -> tuple[Any, tuple[jax.Array, jax.Array]]:
        u, state = tx.update(g, state, jnp.asarray(params))
        return state, (u, state.rms[0])

    start = tx.init(jnp.asarray(params))
    got, rms = jax.jit(lambda s: jax.lax.scan(body, s, jnp.asarray(gradients))[1])(start)
    expected, expected_rms = clipped_adam(gradients, params, weight_decay=0.1)
    assert (expected_rms > 2).sum() == 5
    np.testing.assert_allclose(rms, expected_rms, rtol=2e-5)
    np.testing.assert_allclose(got, expected, rtol=2e-5, atol=2e-6)


def steps_of(tx: optax.GradientTransformation, gradients: jax.Array) -> jax.Array:
    """Return the update of every step, inside of a compiled function."""

    def body(state: Any, g: jax.Array) -> tuple[Any, jax.Array]:
        u, state = tx.update(g, state)
        return state, u

    return jax.lax.scan(body, tx.init(gradients[0]), gradients)[1]


def test_stacked_layers_are_judged_alone() -> None:
    """A leaf of 24 layers, one of which explodes, does what 24 leaves do."""
    gradients = np.random.default_rng(6).normal(size=(80, 24, 3, 3)).astype(np.float32)
    gradients[70, 7] *= 1e4
    stacked = directions(gs.moments.scale_by_clipped_adam(units="layer"), gradients)
    each = jax.vmap(
        lambda g: steps_of(gs.moments.scale_by_clipped_adam(), g), in_axes=1, out_axes=1
    )
    np.testing.assert_allclose(stacked, jax.jit(each)(gradients), rtol=1e-5, atol=1e-6)
    whole = directions(gs.moments.scale_by_clipped_adam(), gradients)
    others = np.arange(24) != 7
    assert np.abs(whole[70, others]).mean() < 0.65 * np.abs(stacked[70, others]).mean()


def test_stable_spam_equals_the_oracle() -> None:
    gradients = spiky(200)
    got = directions(gs.moments.scale_by_stable_spam(reset_every=60), gradients)
    expected, _ = stable_spam(gradients, gap=60)
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)


def test_cautious_equals_the_oracle() -> None:
    gradients = np.random.default_rng(7).normal(size=(30, 40)).astype(np.float32)
    raw = directions(gs.moments.scale_by_adam(), gradients)
    got = directions(gs.moments.cautious(gs.moments.scale_by_adam()), gradients)
    expected = np.stack([cautious(u, g) for u, g in zip(raw, gradients, strict=True)])
    np.testing.assert_allclose(got, expected, rtol=1e-5)
    downhill = gs.moments.cautious(
        optax.chain(gs.moments.scale_by_adam(), optax.scale(-1.0)), descends=True
    )
    np.testing.assert_allclose(directions(downhill, gradients), -got, rtol=1e-6)


def test_clip_by_moment_clips_by_the_moment_of_what_it_let_through() -> None:
    gradients = spiky(120)
    got = directions(gs.moments.clip_by_moment(max_multiple=9.0, b2=0.9, warmup_steps=5), gradients)
    nu = np.zeros(6)
    for step, g in enumerate(gradients.astype(np.float64)):
        limit = np.sqrt(9.0 * nu) if step >= 5 else np.full(6, np.inf)
        expected = np.sign(g) * np.minimum(np.abs(g), limit)
        np.testing.assert_allclose(got[step], expected, rtol=1e-5)
        nu = 0.9 * nu + 0.1 * expected**2


# What each is at a limit of its arguments.
LIMITS: dict[str, tuple[Make, Callable[[np.ndarray], np.ndarray]]] = {
    "adan without memory of differences is Adam": (
        lambda: gs.moments.scale_by_adan(b1=0.9, b2=0.0, b3=0.999),
        lambda g: adam(g),
    ),
    "laprop without momentum is RMSprop, bias corrected": (
        lambda: gs.moments.scale_by_laprop(b1=0.0, eps=1e-8),
        lambda g: adam(g, b1=0.0),
    ),
    "atan2 of large a = b is Adam": (
        lambda: gs.moments.scale_by_adam_atan2(a=1e4, b=1e4),
        lambda g: adam(g, b2=0.99),
    ),
    "ademamix of alpha = 0 is Adam": (
        lambda: gs.moments.scale_by_ademamix(alpha=0.0),
        lambda g: adam(g),
    ),
    "lion without memory is the sign": (lambda: gs.moments.scale_by_lion(b1=0.0), np.sign),
    "s3 without memory is the sign": (lambda: gs.moments.scale_by_s3(b1=0.0), np.sign),
    "stable Adam with no cap is Adam": (
        lambda: gs.moments.scale_by_clipped_adam(max_rms=1e9),
        lambda g: adam(g, b2=0.99),
    ),
    "spam without clips and resets is Adam": (
        lambda: gs.moments.scale_by_spam(max_multiple=1e30, reset_every=10**6, eps=0.0),
        lambda g: adam(g, eps=0.0),
    ),
    "a threshold that is never met is the identity": (
        lambda: gs.moments.clip_by_moment(max_multiple=1e30),
        lambda g: g,
    ),
}


@pytest.mark.parametrize("name", LIMITS)
def test_limit(name: str) -> None:
    make, expected = LIMITS[name]
    gradients = np.random.default_rng(8).normal(size=(60, 8)).astype(np.float32)
    np.testing.assert_allclose(
        directions(make(), gradients), expected(gradients), rtol=2e-4, atol=1e-7
    )


AGREE: dict[str, tuple[Make, Make]] = {
    "adopt": (gs.moments.scale_by_adopt, optax.contrib.scale_by_adopt),
    "adopt(nesterov)": (
        lambda: gs.moments.scale_by_adopt(nesterov=True),
        lambda: optax.contrib.scale_by_adopt(nesterov=True),
    ),
    "lion": (gs.moments.scale_by_lion, optax.scale_by_lion),
    "ademamix": (
        lambda: gs.moments.scale_by_ademamix(alpha=6.0),
        optax.contrib.scale_by_ademamix,
    ),
}


@pytest.mark.parametrize("name", AGREE)
def test_equals_optax_where_optax_is_right(name: str) -> None:
    ours, theirs = AGREE[name]
    gradients = np.random.default_rng(9).normal(size=(100, 8)).astype(np.float32)
    got, expected = directions(ours(), gradients), directions(theirs(), gradients)
    np.testing.assert_allclose(got, expected, rtol=1e-3, atol=1e-5)


LOW = {
    "adan": gs.moments.scale_by_adan,
    "adopt": gs.moments.scale_by_adopt,
    "laprop": gs.moments.scale_by_laprop,
    "adam_atan2": gs.moments.scale_by_adam_atan2,
    "ademamix": gs.moments.scale_by_ademamix,
    "lion": gs.moments.scale_by_lion,
    "s3": gs.moments.scale_by_s3,
    "clipped_adam": gs.moments.scale_by_clipped_adam,
    "spam": gs.moments.scale_by_spam,
    "stable_spam": gs.moments.scale_by_stable_spam,
}


@pytest.mark.parametrize(("dtype", "rtol"), [("bfloat16", 2**-8), ("float16", 2**-10)])
def test_low_precision_rounds_only_what_goes_in_and_out(dtype: str, rtol: float) -> None:
    """Statistics are float32: bfloat16 gradients give the float32 updates, rounded once."""
    gradients = np.random.default_rng(10).normal(size=(50, 8))
    low = jnp.asarray(gradients, jnp.dtype(dtype))

    def both(g: jax.Array) -> list[tuple[jax.Array, jax.Array]]:
        full = g.astype(jnp.float32)
        return [(steps_of(make(), g), steps_of(make(), full)) for make in LOW.values()]

    for got, expected in jax.jit(both)(low):
        assert got.dtype == low.dtype
        np.testing.assert_allclose(got.astype(jnp.float32), expected, rtol=rtol, atol=1e-6)


FREE_OF_SCALE = {
    "adam_atan2": gs.moments.scale_by_adam_atan2,
    "lion": gs.moments.scale_by_lion,
    "s3": gs.moments.scale_by_s3,
}


@jax.jit
def _all_free_of_scale(gradients: jax.Array) -> list[jax.Array]:
    return [steps_of(make(), gradients) for make in FREE_OF_SCALE.values()]


@jax.jit
def _clip_twice(g: jax.Array, nu: jax.Array) -> tuple[jax.Array, jax.Array]:
    once = limit_by_moment(g, nu, 4.0)
    return once, limit_by_moment(once, nu, 4.0)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(st.integers(-40, 40), st.integers(0, 2**31))
def test_scale_does_not_matter(power: int, seed: int) -> None:
    """By a power of two: bit for bit, but for what the p-th roots of S3 round."""
    g = np.random.default_rng(seed).normal(size=(3, 4)).astype(np.float32)
    for one, other in zip(_all_free_of_scale(g), _all_free_of_scale(g * 2.0**power), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    st.lists(st.floats(-(2.0**60), 2.0**60, width=32), min_size=4, max_size=4), st.integers(0, 100)
)
def test_clipping_by_the_moment_is_idempotent(values: list[float], seed: int) -> None:
    nu = np.random.default_rng(seed).exponential(size=4).astype(np.float32)
    once, twice = _clip_twice(np.asarray(values, np.float32), nu)
    np.testing.assert_array_equal(once, twice)


@pytest.mark.parametrize("bad", [np.nan, np.inf, 3e38])
def test_a_bad_entry_leaves_its_statistics_alone(bad: float) -> None:
    good = jnp.asarray([[1.0, -2.0, 0.5], [0.3, 1.0, -1.0]], jnp.float32)
    broken = good.at[0, 0].set(bad)

    def after(g: jax.Array) -> list[tuple[Any, Any]]:
        states = []
        for make in (*LOW.values(), gs.moments.clip_by_moment):
            tx = make()
            _, before = tx.update(good, tx.init(good))
            u, state = tx.update(g, before)
            states.append((before, state, jnp.isfinite(u).all()))
        return states

    for before, state, finite in jax.jit(after)(broken):
        assert finite
        for name in set(state._fields) - {"count", "rms"}:
            old, new = getattr(before, name), getattr(state, name)
            assert jnp.ravel(new)[0] == jnp.ravel(old)[0], (type(state), name)
            assert np.isfinite(new).all()
