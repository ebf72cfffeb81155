"""Promises about unusual trees: missing, empty, scalar and integer leaves."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from gradstable._src.testing.compare import (
    require,
    require_close,
    require_finite,
    require_same_types,
)
from gradstable._src.testing.material import gradients


def check_none_leaves(tx: optax.GradientTransformation, params: Any) -> None:
    """Accept ``None`` in place of a leaf, and return it."""
    del params
    _run({"frozen": None, "kernel": jnp.ones((2, 3)), "nested": {"also": None}}, tx)


def check_empty_tree(tx: optax.GradientTransformation, params: Any) -> None:
    """Accept a tree without leaves."""
    del params
    _run({}, tx)


def check_odd_shapes(tx: optax.GradientTransformation, params: Any) -> None:
    """Accept scalar leaves and empty leaves."""
    del params
    _run({"empty": jnp.ones((0, 3)), "kernel": jnp.ones((2, 3)), "scalar": jnp.ones(())}, tx)


def check_integer_leaves(tx: optax.GradientTransformation, params: Any) -> None:
    """Reject an integer gradient with a ``TypeError`` or ``ValueError`` that names it."""
    del params
    odd = {"kernel": jnp.ones((2, 3)), "steps": jnp.ones((2,), jnp.int32)}
    message = ""
    try:
        jax.eval_shape(tx.update, odd, tx.init(odd), odd)
    except (TypeError, ValueError) as error:
        message = str(error)
    require(message, "an integer leaf of the gradients was accepted")
    require("['steps']" in message, f"the message lacks the path ['steps']: {message}")


def check_other_leaves(tx: optax.GradientTransformation, params: Any) -> None:
    """Accept leaves of a model that are not arrays (functions, text), and numbers as arrays.

    As in Equinox: ``init`` gets the arrays, ``update`` the whole model, and leaves that are not
    arrays have ``None`` for a gradient, also inside ``jit``. Python and NumPy numbers work as they
    do as arguments of a compiled function.
    """
    del params
    arrays: dict[str, Any] = {
        "act": None,
        "drop": None,
        "name": None,
        "kernel": jnp.ones((2, 3)),
        "rate": 0.5,
    }
    model: dict[str, Any] = {**arrays, "act": jax.nn.relu, "drop": 0.1, "name": "mlp"}
    given = {**gradients({**arrays, "rate": jnp.ones(())}), "rate": 0.25}
    updates, state = tx.update(given, tx.init(arrays), model)
    inside, after = jax.jit(lambda g, s: tx.update(g, s, model))(given, tx.init(arrays))
    like = {**arrays, "rate": jnp.ones(())}
    require_same_types(updates, like, name="updates", when="for a model with other leaves")
    require_close(inside, updates, name="updates", when="for a model with other leaves, inside jit")
    require_same_types(after, state, name="state", when="for a model with other leaves")
    numbers = {"bias": np.float32(0.5), "kernel": np.ones((2, 3), np.float32), "rate": 0.5}
    state = tx.init(numbers)
    updates, eager = tx.update(numbers, state, numbers)
    require_same_types(eager, state, name="state", when="for numbers of Python and NumPy")
    inside, _ = jax.jit(tx.update)(numbers, state, numbers)
    require_close(updates, inside, name="updates", when="for numbers of Python and NumPy")


def _run(params: Any, tx: optax.GradientTransformation) -> None:
    """Run three compiled updates, and require that only numbers change."""
    compiled = jax.jit(tx.update)
    _, state = compiled(gradients(params), tx.init(params), params)
    for seed in (1, 2):
        given = gradients(params, seed)
        updates, new_state = compiled(given, state, params)
        require_same_types(updates, given, name="updates", when="after an update")
        require_same_types(new_state, state, name="state", when="after an update")
        require_finite(updates, name="updates", when="after an update")
        state = new_state
