"""``gs.guard(optax.x(...))`` is the recipe for every optimizer that has no name here."""

import inspect
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradstable as gs

# What a factory needs besides a learning rate.
CALL: dict[str, dict[str, Any]] = {
    "mechanize": {"base_optimizer": optax.sgd(0.1)},
    "noisy_sgd": {"key": 0},
    "sam": {
        "optimizer": optax.sgd(0.1),
        "adv_optimizer": optax.chain(optax.contrib.normalize(), optax.sgd(0.05)),
    },
    "schedule_free": {"base_optimizer": optax.sgd(0.1)},
    "scale_by_muon": {"weight_dimension_numbers": None},
    "split_real_and_imaginary": {"inner": optax.sgd(0.1)},
}
PRIVATE = {"l2_norm_clip": 1.0, "noise_multiplier": 0.1}
CALL |= {
    "dpsgd": {**PRIVATE, "seed": 0},
    "differentially_private_aggregate": {**PRIVATE, "key": 0},
}
# Gradients with a batch axis, which the guard does not take so far.
BATCHED = {"dpsgd", "differentially_private_aggregate"}
# An estimate of a diagonal and a reader of a state.
NO_OPTIMIZERS = {"hutchinson_estimator_diag_hessian", "schedule_free_eval_params"}
MATRICES_ONLY = {"scale_by_muon"}


def loss(params: Any) -> jax.Array:
    return sum((jnp.sum((leaf - 2.0) ** 2) for leaf in jax.tree.leaves(params)), jnp.zeros(()))


def aliases() -> dict[str, Any]:
    """Return every alias of optax and everything that optax.contrib makes, by name."""
    found = {}
    for room in (optax, optax.contrib):
        for name in dir(room):
            made = getattr(room, name)
            function = getattr(made, "func", made)
            if not inspect.isfunction(function) or name in NO_OPTIMIZERS:
                continue
            if room is optax.contrib or function.__module__.endswith("alias"):
                found[name] = made
    return found


def arguments(name: str) -> dict[str, Any]:
    given = dict(CALL.get(name, {}))
    for argument, parameter in inspect.signature(aliases()[name]).parameters.items():
        if argument == "learning_rate" and parameter.default in (inspect.Parameter.empty, None):
            given[argument] = 1e-2
    return given


def extra_of(name: str, params: Any, gradients: Any) -> dict[str, Any]:
    if name == "lbfgs":
        return {"value": loss(params), "grad": gradients, "value_fn": loss}
    if name in ("momo", "momo_adam", "polyak_sgd", "reduce_on_plateau"):
        return {"value": loss(params)}
    return {"obj_fn": loss} if name == "sophia" else {}


def step(name: str, tx: Any, state: Any, params: Any, fault: float) -> tuple[Any, Any]:
    gradients = jax.tree.map(lambda g: g.at[0].set(g[0] + fault), jax.grad(loss)(params))
    given = gradients
    if name in BATCHED:
        given = jax.tree.map(lambda g: jnp.stack([g, g]), gradients)
    extra = extra_of(name, params, gradients)
    updates, state = tx.update(given, state, params, **extra)
    return optax.apply_updates(params, updates), state


def bits(tree: Any) -> list[bytes]:
    def raw(leaf: jax.Array) -> jax.Array:
        is_key = jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
        return jax.random.key_data(leaf) if is_key else leaf

    return [np.asarray(raw(leaf)).tobytes() for leaf in jax.tree.leaves(tree)]


def test_the_well_known_ones_are_found() -> None:
    known = {"adafactor", "novograd", "prodigy", "dog", "momo", "sm3", "signum", "lbfgs"}
    assert known | {"schedule_free_sgd", "nadamw", "dpsgd"} <= aliases().keys()


def names() -> list[Any]:
    return sorted(aliases())


@pytest.mark.filterwarnings("ignore:`optimistic_adam` is deprecated:DeprecationWarning")
@pytest.mark.filterwarnings('ignore:"seed" is deprecated:DeprecationWarning')
@pytest.mark.parametrize("name", names())
def test_guard_takes_it_and_keeps_a_nan_out_of_it(name: str) -> None:
    params: Any = {"w": jnp.linspace(-1.0, 1.0, 6).reshape(2, 3), "b": jnp.ones(3)}
    if name in MATRICES_ONLY:
        params = params["w"]
    tx = gs.guard(aliases()[name](**arguments(name)))
    params, state = step(name, tx, tx.init(params), params, 0.0)
    held: Any = state
    after, rejected = step(name, tx, state, params, jnp.nan)
    assert bits(after) == bits(params)
    assert bits(rejected.inner_state) == bits(held.inner_state)
    after, state = step(name, tx, rejected, params, 0.0)
    health = gs.health(state)
    assert (int(health.accepted), int(health.rejected)) == (2, 1)
    assert all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves(after))
