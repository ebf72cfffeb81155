"""Published methods do what their authors' code does, and what it does with a NaN."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from gradstable_gauntlet.contestants import as_published
from gradstable_gauntlet.contestants.as_published.common import tallied

from tests.oracles import (
    adagc,
    clipped_adam,
    ema_multiple,
    gradient_stabilizer,
    percentile,
    spam,
    window_sigma,
    zscore,
)

STEPS, LEAVES = 400, 2
LOSS = 1.0


def stream(seed: int = 0, spike: float = 300.0) -> np.ndarray:
    """Return norms ``[steps, leaves]`` that scatter by 30 %, with two spikes."""
    rng = np.random.default_rng(seed)
    norms = np.exp(0.3 * rng.standard_normal((STEPS, LEAVES))) * np.array([1.0, 0.2])
    norms[[150, 260]] *= spike
    return norms.astype(np.float32)


def gradients_of(norms: np.ndarray) -> Any:
    """Return gradients of two leaves with these norms."""
    directions = np.array([[0.6, -0.8], [0.28, 0.96]], np.float32)
    return {
        name: jnp.asarray(norms[:, i, None] * directions[i]) for i, name in enumerate(("a", "b"))
    }


def norms_after(tx: optax.GradientTransformation, norms: np.ndarray) -> tuple[np.ndarray, Any]:
    """Return the norm of every leaf of the updates, and the last state."""
    params = {"a": jnp.ones(2), "b": jnp.ones(2)}
    tx = optax.with_extra_args_support(tx)

    def step(state: Any, gradient: Any) -> tuple[Any, Any]:
        updates, state = tx.update(gradient, state, params, value=jnp.asarray(LOSS))
        return state, [jnp.sqrt(jnp.sum(leaf**2)) for leaf in jax.tree.leaves(updates)]

    state, after = jax.jit(lambda g: jax.lax.scan(step, tx.init(params), g))(gradients_of(norms))
    return np.stack(after, axis=1), state


def with_nan(at: int) -> np.ndarray:
    norms = stream(spike=1.0)
    norms[at, 0] = np.nan
    return norms


def whole(norms: np.ndarray) -> np.ndarray:
    return np.sqrt((norms.astype(np.float64) ** 2).sum(1))


def test_autoclip_clips_as_the_oracle_does() -> None:
    norms = stream()
    after, state = norms_after(as_published.autoclip(), norms)
    factors = np.array(list(percentile.percentile(whole(norms))))
    np.testing.assert_allclose(after, norms * factors[:, None], rtol=1e-5)
    assert int(tallied(state, jnp.zeros(0))) == pytest.approx((factors < 1).sum(), abs=2)


def test_autoclip_forgets_the_oldest_when_its_history_is_full() -> None:
    norms = stream()
    after, _ = norms_after(as_published.autoclip(size=50), norms)
    factors = np.array(list(percentile.percentile(whole(norms), window=50)))
    np.testing.assert_allclose(after, norms * factors[:, None], rtol=1e-5)


def test_autoclip_keeps_its_history_in_order() -> None:
    _, state = norms_after(as_published.autoclip(size=50), stream())
    np.testing.assert_array_equal(state.ordered, np.sort(state.norms))


def test_autoclip_gives_nan_for_ever_after_a_nan() -> None:
    after, _ = norms_after(as_published.autoclip(), with_nan(100))
    assert np.isfinite(after[:100]).all()
    assert np.isnan(after[100:]).all()


@pytest.mark.parametrize("max_norm", [1.0, None])
def test_zclip_clips_as_the_oracle_does(max_norm: float | None) -> None:
    norms = stream()
    after, _ = norms_after(as_published.zclip(max_norm=max_norm), norms)
    factors = np.array(list(zscore.zscore(whole(norms), max_norm=max_norm)))
    np.testing.assert_allclose(after, norms * factors[:, None], rtol=1e-4)


def test_zclip_is_blind_after_a_nan() -> None:
    norms = with_nan(100)
    norms[200] *= 1000.0
    after, state = norms_after(as_published.zclip(max_norm=None), norms)
    np.testing.assert_allclose(after[101:], norms[101:], rtol=1e-6)
    assert np.isnan(state.mean)
    assert np.isnan(state.var)


def test_zclip_keeps_its_statistics_at_an_infinite_norm() -> None:
    norms = stream(spike=1.0)
    norms[100, 0] = np.inf
    after, state = norms_after(as_published.zclip(), norms)
    assert np.isnan(after[100, 0])
    assert np.isfinite([state.mean, state.var]).all()
    assert np.isfinite(after[101:]).all()


def test_adagc_clips_as_the_oracle_does() -> None:
    norms = stream()
    after, _ = norms_after(as_published.adagc(), norms)
    np.testing.assert_allclose(after, norms * adagc.adagc(norms), rtol=1e-4)


def test_adagc_loses_a_leaf_for_ever_at_a_nan() -> None:
    after, _ = norms_after(as_published.adagc(), with_nan(150))
    assert np.isnan(after[150:, 0]).all()
    assert np.isfinite(after[:, 1]).all()


def test_adagc_lays_a_leaf_to_rest_whose_gradient_was_zero_in_the_warm_up() -> None:
    norms = stream(spike=1.0)
    norms[0, 0] = 0.0
    after, _ = norms_after(as_published.adagc(), norms)
    assert after[100:, 0].max() == 0.0


def test_gradient_stabilizer_gives_the_norms_of_the_oracle() -> None:
    norms = stream()
    after, _ = norms_after(as_published.gradient_stabilizer(), norms)
    np.testing.assert_allclose(after, gradient_stabilizer.gradient_stabilizer(norms), rtol=1e-4)


def test_gradient_stabilizer_begins_with_steps_of_12_6() -> None:
    after, _ = norms_after(as_published.gradient_stabilizer(), np.ones((STEPS, LEAVES), np.float32))
    np.testing.assert_allclose(after[:3, 0], [12.6, 14.3, 14.3], rtol=5e-3)


def test_gradient_stabilizer_loses_a_leaf_for_ever_at_a_nan() -> None:
    after, _ = norms_after(as_published.gradient_stabilizer(), with_nan(150))
    assert np.isnan(after[150:, 0]).all()
    assert np.isfinite(after[:, 1]).all()


def test_window_skips_as_the_oracle_does() -> None:
    norms = stream()
    after, state = norms_after(as_published.skip_on_spikes(optax.identity()), norms)
    losses = [LOSS] * STEPS
    accepted = np.array(list(window_sigma.window_sigma(whole(norms), losses)))
    np.testing.assert_allclose(after, norms * accepted[:, None], rtol=1e-6)
    assert int(state.tally.steps) == (accepted == 0).sum() == 2


def test_window_skips_128_steps_after_a_nan() -> None:
    after, _ = norms_after(as_published.skip_on_spikes(optax.identity()), with_nan(150))
    taken = after[:, 1] > 0
    assert not taken[150:279].any()
    assert taken[:150].all()
    assert taken[279:].all()


def test_window_lets_the_second_of_two_spikes_through() -> None:
    norms = stream(spike=1.0)
    norms[[150, 160]] *= 1000.0
    norms[160] *= 0.5
    after, _ = norms_after(as_published.skip_on_spikes(optax.identity()), norms)
    assert after[150, 0] == 0.0
    assert after[160, 0] > 100.0


def test_skip_and_clip_does_what_the_oracle_does() -> None:
    norms = stream()
    after, _ = norms_after(as_published.skip_and_clip(optax.identity()), norms)
    factors = ema_multiple.ema_multiple(whole(norms), max_multiple=100.0, max_norm=1.0)
    np.testing.assert_allclose(after, norms * np.array(list(factors))[:, None], rtol=1e-5)


def test_skip_and_clip_survives_a_nan() -> None:
    after, state = norms_after(as_published.skip_and_clip(optax.identity()), with_nan(150))
    assert (after[150] == 0.0).all()
    assert np.isfinite(after).all()
    assert np.isfinite(state.mean)


def test_skip_and_clip_rejects_for_ever_what_is_large_from_the_start() -> None:
    norms = 150.0 * stream(spike=1.0)
    norms[:, 0] = np.maximum(norms[:, 0], 110.0)
    after, _ = norms_after(as_published.skip_and_clip(optax.identity()), norms)
    assert (after == 0.0).all()


def direction(
    make: Callable[..., optax.GradientTransformation], gradients: np.ndarray, **options: Any
) -> np.ndarray:
    """Return minus the updates at a rate of 1, one leaf."""
    tx = make(lambda count: jnp.ones(()) + 0.0 * count, **options)
    params = jnp.full(gradients.shape[1:], 0.5)

    def step(state: Any, gradient: Any) -> tuple[Any, Any]:
        updates, state = tx.update(gradient, state, params)
        return state, -updates

    return np.asarray(
        jax.jit(lambda g: jax.lax.scan(step, tx.init(params), g))(jnp.asarray(gradients))[1]
    )


def gradients() -> np.ndarray:
    norms = stream()
    rng = np.random.default_rng(1)
    return (norms[:, :1] * rng.standard_normal((STEPS, 5))).astype(np.float32)


def test_stable_adamw_steps_as_the_oracle_does() -> None:
    ours = direction(as_published.stable_adamw, gradients(), weight_decay=0.0)
    expected, _ = clipped_adam.clipped_adam(gradients())
    np.testing.assert_allclose(ours, expected, rtol=1e-3, atol=1e-5)


def test_stable_adamw_decays_by_the_full_rate() -> None:
    with_decay = direction(as_published.stable_adamw, gradients(), weight_decay=0.2)
    without = direction(as_published.stable_adamw, gradients(), weight_decay=0.0)
    np.testing.assert_allclose(with_decay - without, 0.2 * 0.5, atol=1e-4)


def test_spam_steps_as_the_oracle_does() -> None:
    options = {"reset_every": 120, "warmup": 30}
    ours = direction(as_published.spam, gradients(), **options)
    expected = spam.spam(gradients(), delta_t=120, warmup=30)
    np.testing.assert_allclose(ours, expected, rtol=1e-3, atol=1e-4)


def test_spam_is_nan_until_the_reset_after_a_nan() -> None:
    given = gradients()
    given[150] = np.nan
    ours = direction(as_published.spam, given, reset_every=120)
    assert np.isnan(ours[150:239]).all()
    assert np.isfinite(ours[239:]).all()


def test_stable_spam_steps_as_the_oracle_does_before_a_reset() -> None:
    ours = direction(as_published.stable_spam, gradients())
    expected, _ = spam.stable_spam(gradients())
    np.testing.assert_allclose(ours, expected, rtol=2e-3, atol=1e-4)


def test_stable_spam_resets_as_the_authors_code_does() -> None:
    ours = direction(as_published.stable_spam, np.ones((6, 5), np.float32), reset_every=4)
    unit = 1.0 / math.sqrt(5.0)
    # At the reset, moments of four steps of a constant are corrected as if they were of one.
    old_mu, old_nu = unit * (1 - 0.9**4), unit**2 * (1 - 0.999**4)
    assert ours[3, 0] == pytest.approx(old_mu / 0.1 / math.sqrt(old_nu / 0.001), rel=1e-3)
    # And then those of one step as if they were of two.
    assert ours[4, 0] == pytest.approx(0.1 / 0.19 / math.sqrt(0.001 / 0.001999), rel=1e-3)


def test_stable_spam_lets_large_entries_through_after_a_reset() -> None:
    # One entry of 50 among entries of 1. Moments play no part, nor does the size of the whole.
    given = np.ones((300, 50), np.float32)
    given[[190, 210], 0] = 50.0
    ours = direction(as_published.stable_spam, given, reset_every=200, b1=0.0, eps=1e3)
    before, after = (abs(ours[at, 0] / ours[at, 1]) for at in (190, 210))
    assert before < 1.5
    assert after > 15.0


def test_stable_spam_loses_a_leaf_for_ever_at_a_nan() -> None:
    given = gradients()
    given[150, 0] = np.nan
    ours = direction(as_published.stable_spam, given, reset_every=100)
    assert np.isnan(ours[150, 0])
    assert np.isnan(ours[151:]).all()
