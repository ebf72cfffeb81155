"""Every modern recipe: optax's where it is right, its estimator plus decay, and the guard."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradstable as gs
from gradstable._src.moments.engine import MAX_SQUARED
from tests.recipes.test_recipes import healthy, train, trainer
from tests.registry.entry import bind
from tests.registry.modern import diagonal

Make = Callable[..., optax.GradientTransformation]
SCHEDULE = optax.linear_schedule(1e-2, 1e-3, 20)


def sophia(*args: Any, **options: Any) -> optax.GradientTransformation:
    return bind(gs.recipes.sophia(*args, **options), hessian=diagonal)


AGREE: dict[str, tuple[Make, Make, dict[str, Any]]] = {
    "adopt": (gs.recipes.adopt, optax.contrib.adopt, {}),
    "adopt(all)": (
        gs.recipes.adopt,
        optax.contrib.adopt,
        {"b2": 0.99, "eps": 1e-3, "nesterov": True},
    ),
    "ademamix": (gs.recipes.ademamix, optax.contrib.ademamix, {"weight_decay": 0.1, "b3": 0.999}),
    "lion": (gs.lion, optax.lion, {"weight_decay": 0.1, "mask": {"w": True, "b": False}}),
}


@pytest.mark.parametrize("name", AGREE)
def test_equals_optax_on_a_healthy_run(name: str) -> None:
    ours, theirs, options = AGREE[name]
    params, state = train(ours(SCHEDULE, **options), healthy())
    expected, _ = train(theirs(SCHEDULE, **options), healthy())
    assert gs.health(state).accepted == 30
    for leaf in params:
        np.testing.assert_allclose(params[leaf], expected[leaf], rtol=0, atol=1e-5)
        assert np.abs(expected[leaf] - 1.0).max() > 1e-3


ESTIMATORS: dict[str, tuple[Make, Make]] = {
    "adan": (gs.adan, lambda: gs.moments.scale_by_adan(eps_root=1e-8)),
    "adopt": (gs.recipes.adopt, gs.moments.scale_by_adopt),
    "recipe": (partial(gs.recipe, gs.moments.scale_by_laprop()), gs.moments.scale_by_laprop),
    "ademamix": (gs.recipes.ademamix, lambda: gs.moments.scale_by_ademamix(alpha=5.0)),
    "lion": (gs.lion, gs.moments.scale_by_lion),
    "sophia": (sophia, lambda: bind(gs.moments.scale_by_sophia(), hessian=diagonal)),
}


@pytest.mark.parametrize("name", ESTIMATORS)
def test_is_its_estimator_with_decay_behind_the_guard(name: str) -> None:
    make, estimator = ESTIMATORS[name]
    mask = {"w": True, "b": False}
    plain = optax.chain(
        estimator(), optax.add_decayed_weights(0.1, mask), optax.scale_by_learning_rate(SCHEDULE)
    )
    masks = {"weight_decay_mask" if name == "sophia" else "mask": mask}
    got, state = train(make(SCHEDULE, weight_decay=0.1, **masks), healthy())
    expected, _ = train(plain, healthy())
    assert gs.health(state).accepted == 30
    for leaf in got:
        np.testing.assert_allclose(got[leaf], expected[leaf], rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    "make",
    [
        lambda: gs.recipe(
            gs.moments.scale_by_spam(reset_every=7, warmup_steps=2, reset_warmup_steps=3), SCHEDULE
        ),
        lambda: sophia(SCHEDULE, update_interval=7),
        lambda: gs.recipe(gs.moments.scale_by_stable_spam(reset_every=7), SCHEDULE),
    ],
)
def test_bad_batches_are_as_if_they_had_never_been(
    make: Callable[[], optax.GradientTransformation],
) -> None:
    """Resets and the steps that are due included."""
    good = healthy()
    faults = jnp.asarray([np.nan, np.inf, -np.inf, 3e38, 1e30] * 6, jnp.float32)
    bad = {**good, "b": good["b"].at[:, 0].set(faults)}
    mixed = jax.tree.map(lambda x, y: jnp.stack([x, y], 1).reshape(60, *x.shape[1:]), good, bad)
    run, start = trainer(make(), good)
    got, state = run(start, mixed)
    assert gs.health(state).accepted == gs.health(state).rejected == 30
    apart = jax.tree.map(lambda x, y: jnp.concatenate([x, y]), good, bad)
    expected, _ = run(start, apart)
    jax.tree.map(np.testing.assert_array_equal, got, expected)


@pytest.mark.parametrize(
    "make",
    [
        gs.adan,
        partial(gs.recipe, gs.moments.scale_by_s3()),
        partial(gs.recipe, gs.moments.scale_by_stable_spam()),
    ],
)
def test_estimators_do_not_look_for_what_the_guard_keeps_out(make: Make) -> None:
    def text(tx: optax.GradientTransformation) -> str:
        params = jnp.ones(4)
        return str(jax.make_jaxpr(tx.update)(params, tx.init(params), params))

    limit = f"{MAX_SQUARED:.14e}"[:8]
    assert limit in text(gs.moments.scale_by_adan())
    assert limit not in text(make(1e-3))


@pytest.mark.parametrize(
    "make",
    [
        lambda name: gs.moments.scale_by_stable_spam(axis_name=name),
        lambda name: gs.moments.scale_by_clipped_adam(axis_name=name),
    ],
)
def test_shards_of_a_leaf_are_one_leaf(make: Make) -> None:
    rng = np.random.default_rng(0)
    gradients = (rng.normal(size=(4, 2, 3)) * np.asarray([[1.0], [30.0]])).astype(np.float32)

    def steps(tx: optax.GradientTransformation, gradients: jax.Array) -> jax.Array:
        state, out = tx.init(gradients[0]), []
        for g in gradients:
            u, state = tx.update(g, state)
            out.append(u)
        return jnp.stack(out)

    whole = jax.jit(lambda g: steps(make(None), g))(gradients)
    by_shard = jax.vmap(
        lambda g: steps(make("shards"), g), in_axes=1, out_axes=1, axis_name="shards"
    )
    np.testing.assert_allclose(jax.jit(by_shard)(gradients), whole, rtol=1e-5, atol=1e-6)
