"""What is known of modern estimators when gradients misbehave: the numbers of the docstrings."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradstable as gs
from tests.moments.running import directions, runs
from tests.oracles.adan import adan
from tests.oracles.spam import stable_spam

AFTER = 1001  # the spike of `spike` is step 1000, counted from 0


def spike(size: float = 1000.0, *, then: float = 1.0, steps: int = 3000) -> np.ndarray:
    return runs((1.0, 1000), (size, 1), (then, steps))


def storms(steps: int = 120) -> np.ndarray:
    """Return gradients of all sizes, and some that grow tenfold in every step."""
    rng = np.random.default_rng(0)
    wild = rng.normal(size=(steps, 50)) * np.exp(rng.normal(size=(steps, 50)) * 8)
    wild[50:66, 0] = 10.0 ** np.arange(16)
    return wild.astype(np.float32)


BOUNDS: dict[str, tuple[optax.GradientTransformation, float]] = {
    "adan": (gs.moments.scale_by_adan(), 1.21),
    "adopt": (gs.moments.scale_by_adopt(), 120**0.25),
    "laprop": (gs.moments.scale_by_laprop(), 31.7),
    "laprop(b1 above b2)": (gs.moments.scale_by_laprop(b1=0.99, b2=0.95), 4.5),
    "adam_atan2": (gs.moments.scale_by_adam_atan2(), 1.995),
    "lion": (gs.moments.scale_by_lion(), 1.0),
    "s3": (gs.moments.scale_by_s3(), 1.0),
    "clipped_adam": (gs.moments.scale_by_clipped_adam(), 2.36),
    "spam": (gs.moments.scale_by_spam(reset_every=30), 7.28),
    "stable_spam": (gs.moments.scale_by_stable_spam(reset_every=30), 7.28),
}


@pytest.mark.parametrize("name", BOUNDS)
def test_step_never_exceeds_the_stated_bound(name: str) -> None:
    tx, bound = BOUNDS[name]
    assert np.abs(directions(tx, storms())).max() <= bound * (1 + 1e-6)


def test_adan_reaches_its_bound_and_never_passes_it() -> None:
    """By Cauchy and Schwarz, over the sequence of what is squared: ahead = g + b2 d."""
    b1, b2, b3, steps = 0.98, 0.92, 0.99, 1500
    # The response of g and d to one unit of ahead, k steps later: g = (ahead + b2 g_before)/(1+b2).
    g = (b2 / (1 + b2)) ** np.arange(steps) / (1 + b2)
    d = np.diff(g, prepend=0.0)
    mu = (1 - b1) * np.convolve(b1 ** np.arange(steps), g)[:steps]
    diff = (1 - b2) * np.convolve(b2 ** np.arange(steps), d)[:steps]
    weights = mu + b2 * diff
    worst = weights / b3 ** np.arange(steps)
    exact = math.sqrt(np.sum(weights * worst) / (1 - b3))
    assert exact == pytest.approx(1.21, abs=0.006)
    ahead, gradients, before = (worst / np.abs(worst).max())[::-1], [], 0.0
    for a in ahead:
        before = (a + b2 * before) / (1 + b2)
        gradients.append(before)
    tx = gs.moments.scale_by_adan()
    state: Any = tx.init(jnp.zeros(1))
    state = state._replace(count=jnp.asarray(10**5, jnp.int32))
    reached = directions(tx, np.asarray(gradients, np.float32)[:, None], state)
    assert float(reached[-1, 0]) == pytest.approx(exact, rel=2e-3)


def test_pitfall_adan_weighs_the_difference_by_b2() -> None:
    """The paper, whose b2 is our 1 - b2, and the authors' code; optax 0.2.8 has 1 - b2."""
    gradients = np.random.default_rng(1).normal(size=(100, 8)).astype(np.float32)
    ours, theirs = (
        directions(gs.moments.scale_by_adan(), gradients),
        directions(optax.scale_by_adan(), gradients),
    )
    np.testing.assert_allclose(ours, adan(gradients), atol=1e-5)
    np.testing.assert_allclose(theirs, adan(gradients, weight=0.08), atol=1e-4)
    assert np.abs(ours - theirs).max() > 0.2


@pytest.mark.parametrize(
    ("make", "share", "steps"),
    [
        (gs.moments.scale_by_adan, 0.5, 957),
        (gs.moments.scale_by_s3, 0.1, 201),
        (gs.moments.scale_by_clipped_adam, 0.5, 800),
    ],
)
def test_pitfall_a_spike_shortens_steps_for_long(
    make: Callable[[], optax.GradientTransformation], share: float, steps: int
) -> None:
    out = directions(make(), spike())[AFTER:, 0]
    assert abs((out < share).sum() - steps) <= 2


def test_pitfall_adopt_needs_its_clip() -> None:
    """The first gradient of a weight was zero, as in a row of an embedding: nu is zero."""
    gradients = runs((0.0, 1), (1.0, 7000))
    out = directions(gs.moments.scale_by_adopt(), gradients)[:, 0]
    assert out.max() == pytest.approx(4.6, abs=0.05)
    assert abs((out > 1.5).sum() - 5840) <= 60
    without = directions(gs.moments.scale_by_adopt(use_clipping=False), gradients[:100])
    assert without[1, 0] == pytest.approx(1e5)
    no_eps = gs.moments.scale_by_adopt(use_clipping=False, eps=0.0)
    assert np.isfinite(directions(no_eps, gradients[:100] * 1e18)).all()


def test_adopt_does_not_move_at_the_first_step() -> None:
    assert (
        directions(gs.moments.scale_by_adopt(), runs((3.0, 2)))[:, 0] == [0.0, pytest.approx(0.1)]
    ).all()


def test_pitfall_laprop_has_a_bound_where_adam_has_none() -> None:
    """b1**2 > b2, and a weight whose gradient falls silent."""
    gradients = runs((1.0, 100), (1e-30, 400))
    assert np.abs(directions(gs.moments.scale_by_adam(b1=0.99, b2=0.9), gradients)).max() > 1e3
    assert np.abs(directions(gs.moments.scale_by_laprop(b1=0.99, b2=0.9), gradients)).max() <= 1.01
    sudden = directions(gs.moments.scale_by_laprop(), runs((0.0, 20_000), (1.0, 1)))[-1, 0]
    assert sudden == pytest.approx(3.16, abs=0.01)


def test_pitfall_atan2_has_no_eps() -> None:
    """0/0 is 0, and no scale is special, down to where float32 cannot square: 1e-18."""
    sizes = np.asarray([[0.0, 1e-17, 1e-12, 1.0, 1e12, 1e-25]], np.float32)
    got = directions(gs.moments.scale_by_adam_atan2(), np.repeat(sizes, 5, 0))
    np.testing.assert_array_equal(got[:, 0], 0.0)
    np.testing.assert_allclose(got[:, 1:5], 1.27 * np.pi / 4, rtol=1e-3)
    np.testing.assert_allclose(got[:, 5], 1.27 * np.pi / 2, rtol=1e-6)


def test_pitfall_ademamix_grows_where_gradients_fall_silent() -> None:
    out = directions(gs.moments.scale_by_ademamix(alpha=5.0), runs((1.0, 1000), (0.0, 10_000)))[
        :, 0
    ]
    assert out[999] == pytest.approx(1.48, abs=0.01)
    assert out[5999] == pytest.approx(4.42, abs=0.05)
    assert out[-1] == pytest.approx(32.8, abs=0.5)


def test_pitfall_ademamix_keeps_a_spike_for_ten_thousand_steps() -> None:
    gradients = np.random.default_rng(2).normal(size=(11_000, 100)).astype(np.float32)
    spiked = gradients.copy()
    spiked[1000] = 1000.0
    clean, after = (
        directions(gs.moments.scale_by_ademamix(alpha=5.0), g) for g in (gradients, spiked)
    )
    push = (after - clean).mean(axis=1)
    assert abs(push[2000]) < 0.06, "nu remembers it as well"
    assert push[-1] == pytest.approx(0.18, abs=0.01)
    assert np.abs(clean[-1]).mean() == pytest.approx(0.19, abs=0.03)


def test_pitfall_lion_follows_a_spike() -> None:
    against = directions(gs.moments.scale_by_lion(), spike(then=-1.0))[AFTER:, 0]
    assert (against > 0).sum() == 237
    assert (against[:237] > 0).all()
    signs = np.random.default_rng(0).choice([-1.0, 1.0], size=(2000, 1000)).astype(np.float32)
    signs[1000] = 1000.0
    follows = (directions(gs.moments.scale_by_lion(), signs)[AFTER:] > 0).all(axis=1)
    assert follows[:300].all()
    assert abs(int(np.argmin(follows)) - 338) <= 5
    # The weight of the spike in the momentum, against the 0.01 of a fresh gradient.
    memory = directions(_seen(gs.moments.scale_by_lion(), "mu"), runs((1000.0, 1), (0.0, 1000)))[
        :, 0
    ]
    heavier = int((memory > 0.01).sum())
    assert heavier == 688
    assert heavier == pytest.approx(math.log(1000) / math.log(1 / 0.99), abs=1.5)


def _seen(tx: optax.GradientTransformation, field: str) -> optax.GradientTransformation:
    """Return a field of the state in place of the update."""

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        _, state = tx.update(updates, state, params)
        return getattr(state, field), state

    return optax.GradientTransformation(tx.init, update)


def test_pitfall_sophia_follows_a_spike() -> None:
    tx = gs.moments.scale_by_sophia()
    steady = optax.GradientTransformation(
        tx.init, lambda g, s, p=None: tx.update(g, s, p, hessian=jnp.ones_like(g))
    )
    out = directions(steady, spike(then=-1.0))[AFTER:, 0]
    assert (out == 1.0).sum() == 101


def test_sophia_is_capped_where_curvature_is_unknown_negative_or_broken() -> None:
    tx = gs.moments.scale_by_sophia(update_interval=1)
    g = jnp.asarray([1e-3, -1e3, 1e18, 0.0, 1.0])
    _, state = tx.update(g, tx.init(g), hessian=jnp.asarray([-5.0, 0.0, jnp.nan, -1.0, 1e30]))
    out, state = tx.update(g, state, hessian=jnp.asarray([-5.0, 0.0, -jnp.inf, -1.0, 3.4e38]))
    np.testing.assert_array_equal(out, [1.0, -1.0, 1.0, 0.0, 1.0])
    np.testing.assert_array_equal(state.hessian[2:5:2], [0.0, 0.0])


def test_sophia_reads_the_estimate_only_when_it_is_due_and_compiles_once() -> None:
    tx = gs.moments.scale_by_sophia(update_interval=3)
    traces: list[int] = []
    calls: list[float] = []

    def update(g: jax.Array, state: Any, h: jax.Array) -> Any:
        traces.append(1)

        def hessian(params: jax.Array) -> jax.Array:
            jax.debug.callback(lambda x: calls.append(float(x)), h)
            return h * jnp.ones_like(params)

        return tx.update(g, state, g, hessian=hessian)[1]

    step, g = jax.jit(update), jnp.ones(2)
    state: Any = tx.init(g)
    for t in range(1, 8):
        state = step(g, state, jnp.asarray(float(t)))
    jax.effects_barrier()
    assert calls == [1.0, 4.0, 7.0]
    assert len(traces) == 1


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({}, r"needs an estimate of the diagonal.*hessian=estimate"),
        ({"hessian": lambda params: params}, r"where hessian is a function,.*params"),
        ({"hessian": {"b": jnp.ones(2)}}, r"hessian\['b'\] has no counterpart in updates"),
        ({"hessian": {"a": jnp.ones(3)}}, r"hessian\['a'\] has shape \(3,\)"),
    ],
)
def test_sophia_tells_what_is_wrong_with_the_estimate(given: dict[str, Any], told: str) -> None:
    tx = gs.moments.scale_by_sophia()
    g = {"a": jnp.ones(2)}
    with pytest.raises(ValueError, match=told):
        tx.update(g, tx.init(g), **given)


def test_pitfall_spam_resets_on_schedule() -> None:
    """Every 500 steps: a hundredth of a step at first, a whole one after 150 steps."""
    tx = gs.moments.scale_by_spam()
    out = directions(tx, runs((1.0, 2100)))[:, 0]
    np.testing.assert_allclose(out[:499], 1.0, atol=1e-4)
    assert (np.flatnonzero(np.diff(out) < -0.5) + 2).tolist() == [500, 1000, 1500, 2000]
    assert out[499] < 0.02
    assert out[499:999].max() == pytest.approx(1.87, abs=0.01)
    assert out[998] == pytest.approx(1.27, abs=0.01)
    _, state = tx.update(jnp.ones(1), tx.init(jnp.ones(1))._replace(count=jnp.asarray(9_999)))  # pyright: ignore[reportAttributeAccessIssue]
    late = directions(tx, runs((1.0, 499)), state)[:, 0]
    assert late.max() == pytest.approx(2.7, abs=0.05)
    assert late[-1] == pytest.approx(1.6, abs=0.05)


def test_pitfall_spam_freezes_what_is_silent_after_a_reset() -> None:
    out = directions(gs.moments.scale_by_spam(), runs((1.0, 499), (0.0, 20), (1.0, 600)))[:, 0]
    assert (out[499:999] == 0.0).all()
    assert out[999] != 0.0
    passes = directions(gs.moments.clip_by_moment(), runs((0.0, 60), (1.0, 3)))[:, 0]
    np.testing.assert_array_equal(passes[60:], 1.0)


def test_pitfall_stable_spam_keeps_its_threshold_after_a_reset() -> None:
    """The authors' counter inflates it 316 times, and more than twice for 488 steps."""
    gradients = np.random.default_rng(0).normal(size=(2500, 50)).astype(np.float32)
    _, ours = stable_spam(gradients)
    _, official = stable_spam(gradients, official=True)
    ratio = (official / ours)[1000:1999]
    assert ratio[0] == pytest.approx(316, abs=1)
    assert (ratio > 2).sum() == 488
    # A spike in one entry right after the reset is clipped to the usual size.
    gradients = gradients[:1100]
    gradients[1010, 3] = 1e3
    out = directions(gs.moments.scale_by_stable_spam(), gradients)
    np.testing.assert_allclose(out, stable_spam(gradients)[0], rtol=1e-3, atol=1e-4)


def test_pitfall_stable_spam_shrinks_steps_after_a_spike() -> None:
    gradients = np.random.default_rng(0).normal(size=(6500, 50)).astype(np.float32)
    spiked = gradients.copy()
    spiked[1500] *= 1e6
    tx = gs.moments.scale_by_stable_spam()
    clean, after = (np.abs(directions(tx, g[:2000])) for g in (gradients, spiked))
    ratio = after.mean(axis=1)[1500:] / clean.mean(axis=1)[1500:]
    assert ratio[0] == pytest.approx(1.0, abs=0.05)
    assert ratio.min() == pytest.approx(1 / 40, abs=0.003)
    assert abs((ratio < 0.5).sum() - 94) <= 3
    limit = directions(_seen(tx, "largest"), spiked) / (1 - 0.999 ** np.arange(1, 6501))
    assert 900 < limit[1500] / limit[1499] < 1300
    assert abs((limit[1500:] > 10 * limit[1499]).sum() - 4600) <= 100


def test_pitfall_cautious_enlarges_what_is_left() -> None:
    """One entry in 4000 agrees: it makes a step of 1000 times its length, and not more."""
    gradients = np.ones((12, 4000), np.float32)
    gradients[11, 1:] = -1e-3
    out = directions(gs.moments.cautious(gs.moments.scale_by_adam()), gradients)[11]
    assert out[0] == pytest.approx(1000.0, rel=1e-3)
    assert (out[1:] == 0.0).all()


def test_cautious_multiplies_nothing_by_a_bad_number() -> None:
    echo = optax.stateless(lambda updates, _: updates)
    g = jnp.asarray([jnp.nan, 1.0, -jnp.inf, 0.0])
    out, _ = gs.moments.cautious(echo).update(g, gs.moments.cautious(echo).init(g))
    assert out[0] == 0.0
    assert out[1] == 2.0
    assert jnp.isfinite(out).all()


def test_level_shift_is_released_by_the_clip_of_moments() -> None:
    out = directions(gs.moments.clip_by_moment(), runs((1.0, 500), (1e3, 10)))[500:, 0]
    assert (out < 1e3).sum() == 4
    assert out[0] == pytest.approx(math.sqrt(5000 * (1 - 0.999**500)), rel=1e-3)


def test_rms_of_steady_noise_is_one_and_tells_of_a_spike() -> None:
    tx = gs.moments.scale_by_clipped_adam()
    gradients = np.random.default_rng(4).normal(size=(400, 500)).astype(np.float32)
    gradients[399] *= 1000.0

    def body(state: Any, g: jax.Array) -> tuple[Any, jax.Array]:
        _, state = tx.update(g, state)
        return state, state.rms[0]

    rms = jax.jit(lambda s: jax.lax.scan(body, s, gradients)[1])(tx.init(jnp.zeros(500)))
    assert np.abs(rms[100:399] - 1.0).max() < 0.15
    assert float(rms[399]) == pytest.approx(10.0, abs=0.2)
