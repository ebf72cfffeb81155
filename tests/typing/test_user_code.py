"""The program that the type checker reads runs, and what it refuses is refused at run time too."""

import ast
import inspect
import textwrap

import jax.numpy as jnp
import pytest

import gradstable as gs
from tests.typing import user_code

OPTIMIZERS = user_code.optimizers()
FUNCTION = ast.parse(textwrap.dedent(inspect.getsource(user_code.mistakes)))
MISTAKES = [ast.unparse(node) for node in ast.walk(FUNCTION) if isinstance(node, ast.Expr)][1:]


# The others differ to the type checker, and are trained by tests of their own.
@pytest.mark.parametrize("name", ["guarded", "recipe", "guarded chain"])
def test_optimizer_trains(name: str) -> None:
    params, _ = user_code.train(OPTIMIZERS[name])
    for leaf in params.values():
        assert bool(jnp.all(jnp.isfinite(leaf)))
        assert bool(jnp.any(leaf != 0.0))


def test_state_is_read() -> None:
    params, state = user_code.train(OPTIMIZERS["guarded"])
    assert user_code.read(state, params).startswith("3 of 3: 3 steps: 3 accepted")


def test_losses_and_averages_have_the_types_that_are_asserted() -> None:
    x, y = jnp.ones((4, 3)), jnp.ones(4)
    params, state = user_code.train(OPTIMIZERS["averaged"])
    assert user_code.losses(params, x, y).shape == ()
    averaged = user_code.average(state, params)
    assert {name: leaf.shape for name, leaf in averaged.items()} == {"bias": (), "kernel": (3,)}


@pytest.mark.parametrize("line", MISTAKES)
def test_mistake_that_the_type_checker_finds_is_refused_at_run_time(line: str) -> None:
    with pytest.raises((TypeError, ValueError)):
        eval(line, {"gs": gs, "optax": user_code.optax})


def test_there_are_mistakes() -> None:
    assert len(MISTAKES) >= 10
