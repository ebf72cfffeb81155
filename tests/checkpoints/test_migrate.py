"""An optimizer keeps its state, bit for bit, whatever is put around it or taken off."""

import functools
import re
from typing import Any

import flax.serialization
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradstable as gs
from gradstable._src.core.names import with_names
from gradstable._src.core.order import may_be_around
from gradstable._src.testing.compare import require_same_bits, require_same_types
from gradstable._src.testing.state import require_apart
from tests.registry import Case, cases

PARAMS = {"w": jnp.linspace(-1.0, 1.0, 6).reshape(3, 2), "b": jnp.zeros(2)}
ADAMW = optax.adamw(1e-3, mu_dtype=jnp.bfloat16)


def after(tx: optax.GradientTransformation) -> Any:
    """Return the state after three steps."""
    state, update = tx.init(PARAMS), jax.jit(tx.update)
    for step in range(3):
        gradients = jax.tree.map(lambda leaf, step=step: jnp.cos(leaf + step), PARAMS)
        _, state = update(gradients, state, PARAMS)
    return state


@functools.cache
def adamw_state() -> Any:
    return after(ADAMW)


def is_adam(node: object) -> bool:
    return isinstance(node, optax.ScaleByAdamState)


def adam_in(state: Any) -> Any:
    (found,) = filter(is_adam, jax.tree.leaves(state, is_leaf=is_adam))
    return found


def require_adamw(state: Any, *, of: Any = None) -> None:
    """Require the moments and the count of another state, by default of ``adamw_state``."""
    expected = adam_in(adamw_state() if of is None else of)
    require_same_bits(adam_in(state), expected, name="state", when="after the move")


WRAPPED = {
    "guard": gs.guard(ADAMW),
    "guard with rules": gs.guard(ADAMW, gs.rules.zscore(), gs.rules.global_norm(1.0)),
    "record": gs.record(gs.guard(ADAMW)),
    "accumulate": gs.accumulate(gs.guard(ADAMW), 2),
    "loss_scale": gs.loss_scale(gs.guard(ADAMW)),
    "all": gs.record(gs.precision.kahan(gs.loss_scale(gs.accumulate(gs.guard(ADAMW), 2)))),
    "recipe": gs.adamw(1e-3, mu_dtype=jnp.bfloat16),
    "apply_if_finite": optax.apply_if_finite(ADAMW, 3),
    "MultiSteps": optax.MultiSteps(ADAMW, 2).gradient_transformation(),
    "masked": optax.masked(gs.guard(ADAMW), {"w": True, "b": True}),
    "inject_hyperparams": optax.inject_hyperparams(lambda rate: gs.guard(ADAMW))(rate=0.1),
}
LINKED = {
    "links around": optax.chain(gs.clipping.clip_by(), ADAMW, gs.rate.backoff_on_spike()),
    "links inside": gs.guard(optax.chain(ADAMW, gs.precision.stochastic_round())),
    "partition": optax.partition({"all": gs.guard(ADAMW)}, {"w": "all", "b": "all"}),
}


@pytest.mark.parametrize("name", [*WRAPPED, *LINKED])
def test_wrapper_comes(name: str) -> None:
    tx = (WRAPPED | LINKED)[name]
    state = gs.checkpoints.migrate_state(adamw_state(), tx, params=PARAMS)
    require_adamw(state)
    require_same_types(state, tx.init(PARAMS), name="state", when="after the move")


@pytest.mark.parametrize("name", WRAPPED)
def test_wrapper_goes(name: str) -> None:
    wrapped = gs.checkpoints.migrate_state(adamw_state(), WRAPPED[name], params=PARAMS)
    state = gs.checkpoints.migrate_state(wrapped, ADAMW, params=PARAMS)
    require_same_bits(state, adamw_state(), name="state", when="there and back")


def test_guard_replaces_what_optax_has() -> None:
    old = optax.apply_if_finite(optax.chain(optax.clip_by_global_norm(1e9), ADAMW), 3)
    old = optax.MultiSteps(old, 1).gradient_transformation()
    tx, old_state = gs.accumulate(gs.guard(ADAMW), 4), after(old)
    require_adamw(gs.checkpoints.migrate_state(old_state, tx, params=PARAMS), of=old_state)


def test_rules_change_and_the_ledger_stays() -> None:
    old = after(gs.guard(ADAMW, gs.rules.log_mad()))
    tx = gs.record(gs.guard(ADAMW, gs.rules.zscore()))
    state = gs.checkpoints.migrate_state(old, tx, params=PARAMS).inner_state
    require_adamw(state, of=old)
    require_same_bits(state.ledger, old.ledger, name="ledger", when="with another rule")
    assert int(state.ledger.calls) == 3
    fresh = tx.init(PARAMS).inner_state.rule_state
    require_same_bits(state.rule_state, fresh, name="rules", when="with another rule")


def test_rules_of_the_same_state_go_on() -> None:
    old = after(gs.guard(ADAMW, gs.rules.log_mad()))
    tx = gs.precision.kahan(gs.guard(ADAMW, gs.rules.log_mad(reject_at=99.0)))
    state = gs.checkpoints.migrate_state(old, tx, params=PARAMS)
    require_same_bits(state.inner_state, old, name="guard", when="with another number")


def test_wrappers_around_changed_rules_keep_what_they_have() -> None:
    def wrap(*rules: gs.rules.Rule) -> optax.GradientTransformation:
        return gs.loss_scale(gs.accumulate(gs.guard(ADAMW, *rules), 5), growth_interval=2)

    old = after(wrap())
    assert int(old.inner_state.position) == 3
    assert float(old.loss_scale) == 2.0**17
    new = gs.checkpoints.migrate_state(old, wrap(gs.rules.zscore()), params=PARAMS)
    for kept, of in ((new, old), (new.inner_state, old.inner_state)):
        kept, of = kept._replace(wrapped_state=()), of._replace(wrapped_state=())
        require_same_bits(kept, of, name="wrapper", when="with another rule inside")


def test_wrapper_of_another_size_starts_anew() -> None:
    """A count without the rows that it counts would be read as rows of zeros."""
    old = after(gs.record(gs.guard(ADAMW), capacity=8))
    state = gs.checkpoints.migrate_state(
        old, gs.record(gs.guard(ADAMW), capacity=16), params=PARAMS
    )
    assert int(state.calls) == 0
    require_same_bits(state.inner_state, old.inner_state, name="guard", when="inside")


def test_trees_like_parameters_that_a_wrapper_keeps_are_not_taken_for_the_optimizer() -> None:
    def init(params: optax.Params) -> optax.OptState:
        return jax.tree.map(jnp.zeros_like, params)

    bare = optax.GradientTransformation(init, lambda updates, state, params=None: (updates, state))
    old = jax.tree.map(jnp.ones_like, PARAMS)
    state = gs.checkpoints.migrate_state(old, gs.accumulate(bare, 2), params=PARAMS)
    require_same_bits(state.inner_state, old, name="state", when="inside")
    total = with_names(state.gradient_sum, PARAMS)
    require_same_bits(total, init(PARAMS), name="total", when="beside it")


def test_arrays_of_numpy_are_taken() -> None:
    data = flax.serialization.to_bytes(adamw_state())
    loaded = flax.serialization.from_bytes(ADAMW.init(PARAMS), data)
    assert isinstance(loaded[0].mu["w"], np.ndarray)
    require_adamw(gs.checkpoints.migrate_state(loaded, gs.guard(ADAMW), params=PARAMS))


def test_leaves_are_copies_that_may_be_donated() -> None:
    state = gs.checkpoints.migrate_state(adamw_state(), gs.guard(ADAMW), params=PARAMS)
    require_apart(old_state=adamw_state(), state=state)


def test_inside_jit_the_bits_are_the_same() -> None:
    tx = WRAPPED["all"]
    traced = jax.jit(lambda old, params: gs.checkpoints.migrate_state(old, tx, params=params))
    state = gs.checkpoints.migrate_state(adamw_state(), tx, params=PARAMS)
    require_same_bits(traced(adamw_state(), PARAMS), state, name="state", when="inside jit")


@pytest.mark.parametrize("case", cases(), ids=lambda case: case.name)
def test_every_state_comes_into_a_wrapper_and_out(case: Case) -> None:
    """No structure is left out, whatever will be registered."""
    old = jax.eval_shape(case.tx.init, PARAMS)
    old = jax.tree.map(lambda leaf: jnp.full(leaf.shape, 1, leaf.dtype), old)
    guards = may_be_around("guard", old)
    outside = gs.guard(case.tx) if guards else gs.recovery.moment_hygiene(case.tx)
    wrapped = gs.checkpoints.migrate_state(old, outside, params=PARAMS)
    require_same_bits(wrapped.inner_state, old, name="state", when="inside")
    state = gs.checkpoints.migrate_state(wrapped, case.tx, params=PARAMS)
    require_same_bits(state, old, name="state", when="without it again")


REFUSED = {
    "another optimizer": (
        optax.sgd(0.1, momentum=0.9),
        "int32[] at old_state[0].count, but nothing at .wrapped_state[0].count of tx",
    ),
    "another dtype": (
        optax.adamw(1e-3),
        "bfloat16[2] at old_state[0].mu['b'], but float32[2] at .wrapped_state[0].mu['b'] of tx",
    ),
    "twice": (optax.chain(ADAMW, ADAMW), "2 places, at .wrapped_state[0] and at .wrapped_state[1]"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_does_not_fit_is_refused_by_leaf(name: str) -> None:
    inner, told = REFUSED[name]
    with pytest.raises(ValueError, match=re.escape(told)):
        gs.checkpoints.migrate_state(adamw_state(), gs.guard(inner), params=PARAMS)


def test_other_parameters_are_refused() -> None:
    params = {**PARAMS, "w": jnp.zeros((4, 2))}
    told = re.escape("bfloat16[3, 2] at old_state[0].mu['w'], but bfloat16[4, 2] at .wrapped_state")
    with pytest.raises(ValueError, match=told):
        gs.checkpoints.migrate_state(adamw_state(), gs.guard(ADAMW), params=params)


def test_schedule_cannot_be_taken_away() -> None:
    old = after(optax.adamw(optax.constant_schedule(1e-3), mu_dtype=jnp.bfloat16))
    with pytest.raises(ValueError, match=re.escape("int32[] at old_state[2].count")):
        gs.checkpoints.migrate_state(old, gs.guard(ADAMW), params=PARAMS)


def test_state_that_lost_its_types_is_refused_with_the_remedy() -> None:
    old = flax.serialization.to_state_dict(adamw_state())
    with pytest.raises(ValueError, match="the old transform as the target"):
        gs.checkpoints.migrate_state(old, gs.guard(ADAMW), params=PARAMS)


def test_optimizer_without_a_state_is_no_obstacle() -> None:
    tx = gs.guard(optax.chain(optax.sgd(0.1), optax.sgd(0.1)))
    state = gs.checkpoints.migrate_state(optax.sgd(0.1).init(PARAMS), tx, params=PARAMS)
    require_same_bits(state, tx.init(PARAMS), name="state", when="with nothing to keep")


def test_what_is_no_transform_is_refused() -> None:
    with pytest.raises(TypeError, match=r"tx must be an optax\.GradientTransformation"):
        gs.checkpoints.migrate_state(adamw_state(), optax.adamw, params=PARAMS)
