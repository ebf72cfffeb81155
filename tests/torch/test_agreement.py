"""The same numbers as torch.optim, step by step, with equivalent hyper-parameters.

Skipped where torch is not installed. The reference runs in float64.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradstable as gs

torch: Any = pytest.importorskip("torch")

STEPS, RATE = 100, 1e-2
Ours = Callable[..., optax.GradientTransformation]
# No step is clipped: torch has no guard.
FREE = (gs.rules.global_norm(1e9),)

# Ours, the class in torch.optim, and its options.
PAIRS: dict[str, tuple[Ours, str, dict[str, Any]]] = {
    "sgd": (partial(gs.sgd, RATE), "SGD", {}),
    "momentum": (partial(gs.sgd, RATE, momentum=0.9), "SGD", {"momentum": 0.9}),
    "nesterov": (
        partial(gs.sgd, RATE, momentum=0.9, nesterov=True),
        "SGD",
        {"momentum": 0.9, "nesterov": True},
    ),
    "adam": (partial(gs.adam, RATE), "Adam", {}),
    "adamw": (partial(gs.adamw, RATE, weight_decay=0.1), "AdamW", {"weight_decay": 0.1}),
    "amsgrad": (partial(gs.amsgrad, RATE, correct_maximum=True), "Adam", {"amsgrad": True}),
    "nadam": (partial(gs.nadam, RATE, momentum_decay=4e-3), "NAdam", {}),
    "nadamw": (
        partial(gs.nadamw, RATE, momentum_decay=4e-3, weight_decay=0.1),
        "NAdam",
        {"weight_decay": 0.1, "decoupled_weight_decay": True},
    ),
    "radam": (partial(gs.radam, RATE), "RAdam", {}),
    "rmsprop": (partial(gs.rmsprop, RATE, decay=0.99, eps_in_sqrt=False), "RMSprop", {}),
    "rmsprop, centered, momentum": (
        partial(gs.rmsprop, RATE, decay=0.99, eps_in_sqrt=False, centered=True, momentum=0.9),
        "RMSprop",
        {"centered": True, "momentum": 0.9},
    ),
    # torch adds its eps of 1e-10 outside the root: its square inside is as good as none.
    "adagrad": (
        partial(gs.adagrad, RATE, initial_accumulator_value=0.0, eps=1e-20),
        "Adagrad",
        {},
    ),
    "adadelta": (partial(gs.adadelta, 1.0), "Adadelta", {"lr": 1.0}),
    "adamax": (partial(gs.adamax, RATE), "Adamax", {}),
}


def gradients() -> np.ndarray:
    """Return gradients of eight parameters, whose sizes span two decades."""
    rng = np.random.default_rng(0)
    return (rng.normal(size=(STEPS, 8)) * np.logspace(-1, 1, 8)).astype(np.float32)


def ours(tx: optax.GradientTransformation) -> np.ndarray:
    start = jnp.linspace(-0.1, 0.1, 8)

    def body(carry: Any, g: jax.Array) -> tuple[Any, jax.Array]:
        params, state = carry
        updates, state = tx.update(g, state, params)
        params = optax.apply_updates(params, updates)
        return (params, state), params

    _, path = jax.lax.scan(body, (start, tx.init(start)), jnp.asarray(gradients()))
    return np.asarray(path, np.float64)


def theirs(name: str, options: dict[str, Any]) -> np.ndarray:
    start = np.linspace(-0.1, 0.1, 8, dtype=np.float32)
    parameter = torch.nn.Parameter(torch.tensor(start, dtype=torch.float64))
    optimizer = getattr(torch.optim, name)([parameter], **{"lr": RATE, **options})
    path = []
    for g in gradients():
        parameter.grad = torch.tensor(g, dtype=torch.float64)
        optimizer.step()
        path.append(parameter.detach().numpy().copy())
    return np.stack(path)


def deviation(name: str) -> float:
    """Return how far a parameter is apart at most, over the largest value that it takes."""
    make, kind, options = PAIRS[name]
    expected = theirs(kind, options)
    apart = np.abs(ours(make(rules=FREE)) - expected).max(0)
    return float(np.max(apart / np.abs(expected).max(0)))


@pytest.mark.parametrize("name", PAIRS)
def test_parameters_go_the_way_of_torch(name: str) -> None:
    assert deviation(name) < 1e-5
