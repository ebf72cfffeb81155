"""``gs.protect`` is the wrappers that were asked for, in the right order, and nothing else."""

import itertools
import re
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, PartitionSpec

import gradstable as gs
from gradstable._src.core.order import ORDER, is_wrong
from gradstable._src.core.shown import factories_in
from tests.recipes.weather import WRAPPERS

PARAMS = {"w": jnp.ones(4)}
SWITCHES = ("record", "kahan", "loss_scale", "backoff", "rollback", "govern", "compress_moments")
EVERYTHING = {**dict.fromkeys(SWITCHES, True), "accumulate": 2}


def test_the_default_is_the_guard_and_the_record() -> None:
    adamw = optax.adamw(1e-3)
    tx, by_hand = gs.protect(adamw), gs.record(gs.guard(adamw))
    assert repr(tx) == repr(by_hand)
    state = tx.init(PARAMS)
    chex.assert_trees_all_equal(state, by_hand.init(PARAMS))
    for tx_update in (tx.update, by_hand.update):
        updates, _ = jax.jit(tx_update)(PARAMS, state, PARAMS, value=1.0)
        np.testing.assert_allclose(updates["w"], -1e-3, rtol=1e-2)


def test_every_choice_is_made_in_the_one_order() -> None:
    for chosen in itertools.product([False, True], repeat=len(SWITCHES)):
        for every in (1, 2):
            given: Any = dict(zip(SWITCHES, chosen, strict=True))
            made = list(factories_in(gs.protect(optax.sgd(0.1), accumulate=every, **given)))
            wanted = {name for name in SWITCHES if given[name]} | {"guard"}
            wanted |= {"accumulate"} if every > 1 else set()
            assert made == [name for name in ORDER if name in wanted]


def test_it_has_every_wrapper_of_the_matrix() -> None:
    assert set(factories_in(gs.protect(optax.sgd(0.1), **EVERYTHING))) == WRAPPERS.keys()
    assert not any(is_wrong(*pair) for pair in itertools.combinations(ORDER, 2))


def test_it_prints_as_the_nesting_that_it_is() -> None:
    rule = gs.rules.log_mad(clip_at=3.0)
    tx = gs.protect(
        gs.moments.scale_by_adam(),
        rules=[rule],
        rollback={"every": 500},
        accumulate={"every": 8, "rules": [gs.rules.global_norm(1.0)]},
        kahan={"dtype": jnp.float32},
        axis_name="model",
    )
    text = repr(tx)
    assert text.startswith("telemetry.record(precision.kahan(recovery.accumulate(")
    assert "rollback(guard(moments.scale_by_adam(), rules.log_mad(clip_at=3.0)" in text
    assert repr(eval(text, {**vars(gs), "jnp": jnp})) == text


def test_options_go_to_their_wrapper_and_the_axis_to_all_that_measure() -> None:
    tx: Any = gs.protect(
        optax.sgd(0.1), **{**EVERYTHING, "rollback": {"every": 7, "axis_name": None}}, axis_name="x"
    )
    given = {}
    while getattr(tx, "call", None):
        given[tx.call.factory.__name__] = tx.call.kwargs
        tx = tx.call.args[0]
    assert given["rollback"] == {"every": 7, "axis_name": None}
    takes = {name for name, kwargs in given.items() if kwargs.get("axis_name") == "x"}
    assert takes == {"record", "kahan", "accumulate", "govern", "guard"}


@pytest.mark.parametrize("optimizer", [gs.adamw(1e-3), gs.guard(optax.adamw(1e-3))], ids=repr)
def test_an_optimizer_with_a_guard_gets_no_second_one(optimizer: Any) -> None:
    state = gs.protect(optimizer, rollback=True).init(PARAMS)
    assert int(gs.health(state).accepted) == 0  # raises where there are two
    with pytest.raises(ValueError, match=r"rules must be given to the guard .*rules=\("):
        gs.protect(optimizer, rules=[gs.rules.zscore()])


@pytest.mark.parametrize(
    ("given", "error", "told"),
    [
        ({"rollback": "yes"}, TypeError, "rollback must be True, False, or a dictionary .*'yes'"),
        ({"record": None}, TypeError, "record must be True, False, or .*gradstable.record, got N"),
        ({"govern": 1}, TypeError, "govern must be True"),
        ({"rollback": {"evry": 5}}, TypeError, r"rollback\(\) got an unexpected .*'evry'"),
        ({"rollback": {"every": 0}}, ValueError, "every must be a number >= 1, got 0"),
        ({"accumulate": 0}, ValueError, "accumulate must be a number >= 1, got 0"),
        ({"accumulate": True}, TypeError, "accumulate must be a real number, got True"),
        ({"accumulate": {}}, TypeError, "accumulate.*'every'"),
        ({"rules": [gs.rules.log_mad]}, TypeError, "rule 0 .* call it first"),
        ({"axis_name": 3}, TypeError, "axis_name must be"),
    ],
)
def test_what_is_no_option_is_told(given: Any, error: Any, told: str) -> None:
    with pytest.raises(error, match=told):
        gs.protect(optax.sgd(0.1), **given)


def test_what_is_no_optimizer_is_told() -> None:
    with pytest.raises(TypeError, match=r"optimizer must be .*call it first, as in adamw"):
        gs.protect(optax.adamw)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match=re.escape("guard must not be around rollback")):
        gs.protect(gs.rollback(optax.adamw(1e-3)))


def test_everything_works_with_a_scaled_loss() -> None:
    tx = gs.protect(optax.adamw(1e-2), **{**EVERYTHING, "rollback": {"every": 5}})
    params = {"w": jnp.ones(8, jnp.float16)}
    x = jax.random.normal(jax.random.key(0), (40, 8), jnp.float16)

    @jax.jit
    def step(params: Any, state: Any, x: jax.Array) -> Any:
        def loss_fn(params: Any) -> Any:
            loss = jnp.sum((x * (params["w"] - 2)) ** 2)
            return gs.scale_loss(state, loss), loss

        gradients, loss = jax.grad(loss_fn, has_aux=True)(params)
        updates, state = tx.update(gradients, state, params, value=loss)
        return optax.apply_updates(params, updates), state

    state = tx.init(params)
    for row in (*x, jnp.full(8, jnp.inf, jnp.float16), *x):
        params, state = step(params, state, row)
    assert float(params["w"].min()) > 1.1
    told = gs.explain(state, params)
    assert "left out because the gradient had NaN or infinite entries" in told
    assert "The loss scale is" in told
    assert len(gs.telemetry.read_rows(state).steps) == 81
    assert float(gs.recovery.last_good(state)["w"].min()) > 1.1
    gs.check(state)


def test_devices_agree_where_leaves_are_split() -> None:
    """With ``axis_name``, a spike in the part of one device is rejected by all."""
    specs = PartitionSpec("x")
    tx = gs.protect(optax.sgd(0.1), govern=True, rollback=True, axis_name=specs)

    def run(gradients: jax.Array, params: Any) -> Any:
        state = tx.init(params)
        for gradient in gradients:
            updates, state = tx.update(gradient, state, params, value=1.0)
            params = optax.apply_updates(params, updates)
        return params

    gradients = jnp.ones((3, 8)).at[1, 0].set(jnp.nan)
    mesh = jax.make_mesh((8,), ("x",), axis_types=(AxisType.Auto,))
    split: Any = jax.shard_map(
        run,
        mesh=mesh,
        in_specs=(PartitionSpec(None, "x"), specs),
        out_specs=specs,
        check_vma=False,
    )
    params = jax.jit(split)(gradients, jnp.ones(8))
    assert len(np.unique(np.asarray(params))) == 1
