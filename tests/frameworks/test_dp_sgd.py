"""DP-SGD: what decides on a step may see the noisy mean only, or it tells of single examples."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import gradstable as gs
from tests.frameworks.trouble import (
    NAN_AT,
    STEPS,
    assert_held,
    batches,
    is_finite,
)


def drop_broken_examples() -> optax.GradientTransformation:
    """Return a transform that sets the gradients of an example to 0 if any of them is not finite.

    It looks at each example by itself, so an example still moves the sum by no more than the norm
    to which it is clipped.
    """

    def drop(gradients: optax.Updates, params: optax.Params | None) -> optax.Updates:
        del params
        leaves = jax.tree.leaves(gradients)
        finite = jnp.stack([jnp.isfinite(g).reshape(len(g), -1).all(axis=1) for g in leaves])
        keep = finite.all(axis=0)
        return jax.tree.map(
            lambda g: jnp.where(keep.reshape(-1, *[1] * (g.ndim - 1)), g, 0), gradients
        )

    return optax.stateless(drop)


def private(inner: optax.GradientTransformation, *first: Any) -> Any:
    aggregate = optax.contrib.differentially_private_aggregate(1.0, 0.3, key=0)
    return optax.chain(*first, aggregate, inner)


def train(tx: optax.GradientTransformation) -> tuple[Any, optax.OptState, float, float]:
    def loss_fn(params: Any, x: jax.Array, y: jax.Array) -> jax.Array:
        return jnp.mean((jax.nn.relu(x @ params["hidden"]) @ params["out"] - y) ** 2)

    @jax.jit
    def train_step(params: Any, opt_state: optax.OptState, x: jax.Array, y: jax.Array) -> Any:
        of_each = jax.vmap(jax.grad(loss_fn), in_axes=(None, 0, 0))
        updates, opt_state = tx.update(of_each(params, x, y), opt_state, params)
        return optax.apply_updates(params, updates), opt_state

    keys = jax.random.split(jax.random.key(0))
    params = {
        "hidden": jax.random.normal(keys[0], (3, 16)),
        "out": 0.3 * jax.random.normal(keys[1], (16, 1)),
    }
    opt_state = tx.init(params)
    before = float(loss_fn(params, *batches()[0]))
    for x, y in batches():
        params, opt_state = train_step(params, opt_state, x, y)
    return params, opt_state, before, float(loss_fn(params, *batches()[0]))


def test_a_broken_example_is_left_out_and_the_noisy_mean_is_judged() -> None:
    tx = private(gs.guard(optax.adam(1e-2)), drop_broken_examples())
    params, opt_state, before, after = train(tx)
    assert is_finite(params)
    health = gs.health(opt_state)
    # The clip makes the large batch as small as any other, so nothing is left to reject.
    assert (int(health.count), int(health.rejected)) == (STEPS, 0)
    assert after < 0.7 * before, (before, after)


def test_without_dropping_the_example_the_guard_rejects_its_batch() -> None:
    # It protects the run, but the rejection tells that the example was there.
    params, opt_state, _, _ = train(private(gs.guard(optax.adam(1e-2))))
    assert is_finite(params)
    assert int(gs.health(opt_state).last_rejected) == NAN_AT


def test_without_the_guard_one_example_ends_the_run() -> None:
    params, _, _, _ = train(private(optax.adam(1e-2)))
    assert not is_finite(params)


def test_around_the_aggregate_the_guard_judges_what_is_private() -> None:
    params, opt_state, _, _ = train(gs.guard(private(optax.adam(1e-2))))
    assert is_finite(params)
    assert_held(opt_state)  # both bad batches: it sees gradients that nobody has clipped


def test_an_example_moves_the_sum_by_no_more_than_the_clip() -> None:
    rng = np.random.default_rng(0)
    gradients = {"w": jnp.asarray(rng.standard_normal((8, 5)), jnp.float32) * 100}
    exact = optax.contrib.differentially_private_aggregate(1.0, 0.0, key=0)
    tx = optax.chain(drop_broken_examples(), exact)

    def mean(gradients: Any) -> jax.Array:
        return tx.update(gradients, tx.init({"w": jnp.zeros(5)}))[0]["w"]

    for value in (jnp.nan, jnp.inf, 1e30):
        other = {"w": gradients["w"].at[3, 2].set(value)}
        assert jnp.linalg.norm(mean(other) - mean(gradients)) <= 2 / 8 + 1e-6
