"""A mask chooses among parameters; what is none, in a model, is passed over with and without it."""

import inspect
from typing import Any

import jax
import optax
import pytest

from gradstable._src.testing.contract import CHECKS, failure
from tests.registry import public_names, resolve


def masks_of(name: str) -> list[str]:
    made = None if name.startswith("losses.") else resolve(name)
    known = inspect.signature(made).parameters if inspect.isfunction(made) else {}
    return [argument for argument in known if argument.endswith("mask")]


def matrices(tree: Any) -> Any:
    return jax.tree.map(lambda leaf: leaf.ndim > 1, tree)


# Sophia needs an estimate of the Hessian besides, which the check does not bring.
@pytest.mark.parametrize(
    "name", [name for name in sorted(public_names()) if masks_of(name) and name != "recipes.sophia"]
)
def test_pitfall_a_mask_does_not_stumble_over_functions_in_a_model(name: str) -> None:
    factory: Any = resolve(name)
    arguments: dict[str, Any] = dict.fromkeys(masks_of(name), matrices)
    known = inspect.signature(factory).parameters
    given = {"learning_rate": 1e-3, "weight_decay": 0.1, "direction": optax.identity()}
    arguments |= {argument: value for argument, value in given.items() if argument in known}
    broken = failure(CHECKS["other_leaves"], factory(**arguments))
    if broken is not None:
        raise broken
