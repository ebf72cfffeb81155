"""Any optax transform in any loop: gradients unlike parameters, frozen leaves, whole models."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradstable as gs

PARAMS = {"frozen": jnp.ones(3), "lora": jnp.ones(2), "steps": jnp.ones(3, jnp.int32)}
TRAIN = {"frozen": False, "lora": True, "steps": False}
FLOAT0 = np.zeros(3, jax.dtypes.float0)


def partitioned() -> optax.GradientTransformation:
    labels = jax.tree.map(lambda train: "train" if train else "frozen", TRAIN)
    parts: Any = {"train": optax.adamw(1e-2), "frozen": optax.set_to_zero()}
    return optax.partition(parts, labels)


def run(tx: optax.GradientTransformation, gradients: Any, params: Any, *, jit: bool) -> Any:
    state = tx.init(params)
    if jit:
        return jax.jit(lambda s, p: tx.update(gradients, s, p))(state, params)
    return tx.update(gradients, state, params)


@pytest.mark.parametrize("jit", [False, True], ids=["eager", "jit"])
@pytest.mark.parametrize("steps", [FLOAT0, jnp.zeros(3, jnp.int32)], ids=["float0", "int32"])
def test_what_the_optimizer_does_not_read_is_not_judged(steps: Any, jit: bool) -> None:
    """Pitfall: a NaN in a frozen leaf rejected 40 of 40 steps."""
    tx = gs.guard(partitioned())
    gradients = {"frozen": jnp.full(3, jnp.nan), "lora": jnp.asarray([3.0, 4.0]), "steps": steps}
    updates, state = run(tx, gradients, PARAMS, jit=jit)
    health = gs.health(state)
    assert int(health.accepted) == 1
    assert float(health.grad_norm) == 5.0
    assert (updates["lora"] < 0).all()
    bare, _ = run(partitioned(), gradients, PARAMS, jit=jit)
    np.testing.assert_allclose(updates["lora"], bare["lora"], rtol=1e-6)


@pytest.mark.parametrize("jit", [False, True], ids=["eager", "jit"])
def test_what_it_hands_through_is_judged(jit: bool) -> None:
    """``optax.masked`` leaves the gradient of an unmasked leaf for an update."""
    tx = gs.guard(optax.masked(optax.sgd(0.1), TRAIN))
    broken = {"frozen": jnp.full(3, jnp.nan), "lora": jnp.ones(2), "steps": FLOAT0}
    updates, state = run(tx, broken, PARAMS, jit=jit)
    assert int(gs.health(state).rejected) == 1
    np.testing.assert_array_equal(updates["lora"], jnp.zeros(2))
    sound = {**broken, "frozen": jnp.ones(3)}
    _, state = run(tx, sound, PARAMS, jit=jit)
    assert int(gs.health(state).accepted) == 1


def test_what_some_output_depends_on_is_judged_however_deep_it_is_read() -> None:
    def deep(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        del params
        a, b, c = updates
        a = jax.jit(lambda x: jax.nn.relu(x) * 2)(a)
        b = jax.lax.cond(state > 0, lambda: b * 2, lambda: b * 3)
        c, _ = jax.lax.scan(lambda carry, _: (carry + 1, None), c, length=2)
        return (a, b, c), state

    tx = gs.guard(optax.GradientTransformation(lambda params: jnp.zeros(()), deep))
    for place in range(3):
        gradients = tuple(jnp.full(2, jnp.nan if i == place else 1.0) for i in range(3))
        for jit in (False, True):
            _, state = run(tx, gradients, gradients, jit=jit)
            assert int(gs.health(state).rejected) == 1, (place, jit)


def test_integers_that_are_computed_with_are_refused_and_the_advice_works() -> None:
    params = {"lora": jnp.ones(2), "steps": jnp.ones(3, jnp.int32)}
    gradients = {"lora": jnp.ones(2), "steps": jnp.zeros(3, jnp.int32)}
    with pytest.raises(TypeError, match=r"updates\['steps'\] has dtype int32.*optax.masked"):
        run(gs.guard(optax.sgd(0.1)), gradients, params, jit=False)
    masked = optax.masked(optax.sgd(0.1), {"lora": True, "steps": False})
    updates, _ = run(gs.guard(masked), gradients, params, jit=False)
    assert optax.apply_updates(params, updates)["steps"].dtype == jnp.int32


@pytest.mark.parametrize("jit", [False, True], ids=["eager", "jit"])
def test_gradients_need_not_look_like_parameters(jit: bool) -> None:
    params = {"w": jnp.ones(2)}
    # What ``optax.contrib.dpsgd`` is made of: its own arguments are between two names.
    private = optax.chain(
        optax.contrib.differentially_private_aggregate(1.0, 1.0, key=0), optax.sgd(0.1)
    )
    batch = {"w": jnp.ones((4, 2))}
    both_ways = (run(tx, batch, params, jit=jit)[0]["w"] for tx in (gs.guard(private), private))
    np.testing.assert_allclose(*both_ways, rtol=1e-6)
    batch = {"w": batch["w"].at[1, 0].set(jnp.nan)}
    updates, _ = run(gs.guard(private), batch, params, jit=jit)
    np.testing.assert_array_equal(updates["w"], jnp.zeros(2))

    both: Any = optax.LookaheadParams.init_synced(params)
    tx = gs.guard(optax.lookahead(optax.sgd(0.1), 5, 0.5))
    updates, state = run(tx, {"w": jnp.ones(2)}, both, jit=jit)
    np.testing.assert_allclose(updates.fast["w"], [-0.1, -0.1], rtol=1e-6)
    assert int(gs.health(state).accepted) == 1


def test_a_mismatch_that_reaches_the_parameters_is_still_refused() -> None:
    tx = gs.guard(optax.sgd(0.1))
    with pytest.raises(ValueError, match=r"updates\['w'\] has shape \(3,\), but params\['w'\]"):
        run(tx, {"w": jnp.ones(3)}, {"w": jnp.ones(2)}, jit=True)


@pytest.mark.parametrize("jit", [False, True], ids=["eager", "jit"])
def test_whatever_has_init_and_update_is_a_transform(jit: bool) -> None:
    """Pitfall: ``optax.MultiSteps`` was refused by ``isinstance``."""

    class Plain:
        def init(self, params: Any) -> Any:
            return optax.EmptyState()

        def update(self, updates: Any, state: Any, params: Any = None) -> Any:
            return jax.tree.map(lambda g: -g, updates), state

    for inner in (optax.MultiSteps(optax.adam(0.1), 1), Plain()):
        tx: Any = gs.guard(inner)  # pyright: ignore[reportArgumentType]
        params = {"w": jnp.ones(2)}
        updates, _ = run(tx, {"w": jnp.ones(2)}, params, jit=jit)
        assert (updates["w"] < 0).all()
        broken, _ = run(tx, {"w": jnp.full(2, jnp.nan)}, params, jit=jit)
        np.testing.assert_array_equal(broken["w"], jnp.zeros(2))
        # Unknown arguments are dropped for what takes none, as optax does.
        tx.update({"w": jnp.ones(2)}, tx.init(params), params, value=1.0)


WRAPPERS = {
    "guard": gs.guard,
    "loss_scale": lambda inner: gs.loss_scale(gs.guard(inner)),
    "accumulate": lambda inner: gs.accumulate(gs.guard(inner), 1),
    "rollback": lambda inner: gs.rollback(gs.guard(inner)),
    "backoff": lambda inner: gs.backoff(gs.guard(inner)),
    "moment_hygiene": lambda inner: gs.recovery.moment_hygiene(gs.guard(inner)),
    "kahan": lambda inner: gs.precision.kahan(gs.guard(inner)),
    "record": lambda inner: gs.record(gs.guard(inner)),
}


@pytest.mark.parametrize("steps", [FLOAT0, jnp.zeros(3, jnp.int32)], ids=["float0", "int32"])
@pytest.mark.parametrize("name", WRAPPERS)
def test_every_wrapper_takes_what_the_guard_takes(name: str, steps: Any) -> None:
    tx = WRAPPERS[name](partitioned())
    gradients = {"frozen": jnp.full(3, jnp.nan), "lora": jnp.ones(2), "steps": steps}
    updates, _ = tx.update(gradients, tx.init(PARAMS), PARAMS, value=1.0)
    assert (updates["lora"] < 0).all()


@pytest.mark.parametrize("name", WRAPPERS)
def test_a_whole_model_may_be_passed_as_params(name: str) -> None:
    """As in ``equinox.filter_jit``: functions and text are static, and have no gradient."""
    model = {"act": jax.nn.gelu, "dropout": 0.1, "kernel": jnp.ones((2, 2)), "name": "mlp"}
    arrays = {"act": None, "dropout": None, "kernel": jnp.ones((2, 2)), "name": None}
    tx = WRAPPERS[name](optax.adamw(1e-2))

    @jax.jit
    def step(kernel: jax.Array, state: Any) -> Any:
        gradients = {**arrays, "kernel": kernel}
        return tx.update(gradients, state, {**model, "kernel": kernel}, value=1.0)

    updates, _ = step(model["kernel"], tx.init(arrays))
    assert (updates["kernel"] < 0).all()
    assert updates["act"] is None
