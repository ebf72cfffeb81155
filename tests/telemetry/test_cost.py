"""What recording costs, by XLA's count of words moved."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import optax
import pytest

import gradstable as gs
from benchmarks.counting import Count, count_common_path

# Large leaves: of smaller ones than 32,768 entries more than one in 128 is looked at.
TREE = {f"w{i}": jax.ShapeDtypeStruct((512, 1024), jnp.float32) for i in range(6)}
OPTIMIZERS = {
    "guard(adamw)": gs.guard(optax.adamw(1e-3)),
    "guard(sgd, momentum)": gs.guard(optax.sgd(0.1, momentum=0.9)),
    "guard(lion)": gs.guard(optax.lion(1e-4)),
    "adamw": optax.adamw(1e-3),
}


@functools.cache
def count(name: str, *, recorded: bool) -> Count:
    inner = OPTIMIZERS[name]
    tx = gs.record(inner) if recorded else inner

    def update(updates: Any, state: Any, params: Any = None, **_: Any) -> Any:
        extra = {"value": 1.0} if recorded else {}
        return tx.update(updates, state, params, **extra)

    return count_common_path(optax.GradientTransformationExtraArgs(tx.init, update), TREE)


@pytest.mark.parametrize("name", [name for name in OPTIMIZERS if name.startswith("guard")])
def test_record_adds_a_fifth_of_a_word_at_most(name: str) -> None:
    added = count(name, recorded=True).words - count(name, recorded=False).words
    assert 0.0 < added <= 0.2


def test_without_a_guard_the_gradient_is_read_once_more() -> None:
    added = count("adamw", recorded=True).words - count("adamw", recorded=False).words
    assert 1.0 <= added <= 1.2


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_parameters_are_not_copied_before_they_are_overwritten(name: str) -> None:
    """Pitfall: XLA copies all of an array that is sampled after it may have been overwritten."""
    added = count(name, recorded=True).temp - count(name, recorded=False).temp
    assert added <= 0.05
