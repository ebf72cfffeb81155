"""What protection adds where leaves are many and small, by counts that do not wobble."""

import re
from typing import Any

import jax
import jax.numpy as jnp
import optax
import pytest

import gradstable as gs
from benchmarks.counting import compile_step
from benchmarks.speed.contestants import CONTESTANTS, recompiles
from tests.registry.entry import bind

NUM_LEAVES = 200
TREE = {f"w{i:03}": jax.ShapeDtypeStruct((16, 16), jnp.float32) for i in range(NUM_LEAVES)}
# An equation or an instruction a leaf is hundreds of milliseconds where there are a thousand.
SLACK = NUM_LEAVES // 2


def num_equations(tx: optax.GradientTransformation) -> int:
    state = jax.eval_shape(tx.init, TREE)
    return len(jax.make_jaxpr(tx.update)(TREE, state, TREE).eqns)


def program(tx: optax.GradientTransformation, tree: Any = TREE) -> str:
    return compile_step(tx, tree)[0].as_text()


def count(text: str, operation: str) -> int:
    return text.count(f" {operation}(")


def test_the_guard_adds_fourteen_equations_a_leaf() -> None:
    # The scale, a dimension to stack by; is_finite and two selects for each moment and for the
    # update, which takes a sum and zeros besides.
    bare = num_equations(optax.adamw(3e-4))
    assert num_equations(gs.guard(optax.adamw(3e-4))) <= bare + 14 * NUM_LEAVES + SLACK


def test_scalars_of_the_verdict_are_not_repeated_in_every_leaf() -> None:
    text = program(gs.guard(optax.adamw(3e-4)))
    for operation in ("minimum", "maximum", "compare"):
        assert count(text, operation) < NUM_LEAVES, operation
    bare = program(optax.adamw(3e-4))
    assert count(text, "fusion") <= count(bare, "fusion") + SLACK
    assert count(text, "multiply") <= count(bare, "multiply") + 2.5 * NUM_LEAVES


@pytest.mark.parametrize("copies", [2, 4])
def test_a_rollback_carries_ten_values_a_leaf_however_many_copies_it_keeps(copies: int) -> None:
    """XLA's copy insertion and all passes after it grow with what loops carry."""
    guard = gs.guard(optax.adamw(3e-4))
    tx = bind(gs.rollback(guard, copies=copies), value=1.0)
    assert num_equations(tx) <= num_equations(guard) + 29 * NUM_LEAVES
    text, of_guard = program(tx), program(guard)
    loops = [line.split(" while(")[0] for line in text.splitlines() if " while(" in line]
    # Parameters, moments and their stacks, to write a row; moments and their stacks, to read one.
    carried = [loop.count("16,16]") / NUM_LEAVES for loop in loops]
    assert sorted(carried) == [4, 6]
    # Writing three rows and reading two; the rest decides whether to.
    assert count(text, "fusion") <= count(of_guard, "fusion") + 5 * NUM_LEAVES + 1.2 * SLACK
    assert not re.search(r"16,16\]\S* copy\(", text)
    assert count(text, "sort") <= 3


@pytest.mark.parametrize("num_leaves", [1, 2, 40])
def test_the_rare_way_of_the_norm_stays_a_branch(num_leaves: int) -> None:
    """XLA turns small conditionals into selects, and would then take both ways in every step."""
    tree = dict(list(TREE.items())[:num_leaves])
    assert count(program(gs.guard(optax.sgd(0.1)), tree), "conditional") == 1


@pytest.mark.parametrize("name", CONTESTANTS)
def test_nothing_is_compiled_anew_when_the_rate_changes(name: str) -> None:
    assert recompiles(CONTESTANTS[name].make) == 0


@pytest.mark.parametrize(
    "make",
    [
        lambda limit: gs.guard(optax.adamw(3e-4), gs.rules.global_norm(limit)),
        lambda limit: gs.guard(optax.adamw(3e-4), gs.rules.log_mad(clip_at=limit)),
        lambda limit: gs.stable_adamw(3e-4, max_rms=limit),
        lambda limit: gs.clipping.clip_by_global_norm(limit),
    ],
    ids=["global_norm", "log_mad", "stable_adamw", "clip_by_global_norm"],
)
def test_nothing_is_compiled_anew_when_a_threshold_changes(make: Any) -> None:
    assert recompiles(make) == 0


def test_nothing_is_compiled_anew_when_injected_hyperparameters_change() -> None:
    tx = gs.guard(optax.inject_hyperparams(optax.adamw)(learning_rate=1e-3))
    params = {"w": jnp.ones((2, 3))}
    state = tx.init(params)
    traces: list[int] = []

    @jax.jit
    def step(params: Any, state: Any) -> Any:
        traces.append(1)
        updates, state = tx.update(params, state, params)
        return optax.apply_updates(params, updates), state

    for rate in (1e-3, 1e-4, 3e-2):
        state.inner_state.hyperparams["learning_rate"] = jnp.float32(rate)
        params, state = step(params, state)
    assert len(traces) == 1
