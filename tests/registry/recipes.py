"""Assembled optimizers."""

import jax.numpy as jnp
import numpy as np
import optax

import gradstable as gs
from tests.registry.entry import BELOW_ZERO, Case, Entry, is_matrix
from tests.registry.moments import ADAM

FAMILY = "Recipes"

RATE = (-1e-3, np.inf)

ENTRIES = [
    Entry(
        "adamw",
        FAMILY,
        source="Loshchilov 2017, arXiv:1711.05101",
        promise="AdamW behind the guard, at the cost of the guard alone",
        weakness="as scale_by_adam",
        cases=[
            Case("adamw", gs.adamw(1e-3)),
            Case(
                "adamw(all options)",
                gs.adamw(
                    optax.linear_schedule(1e-2, 1e-3, 10),
                    b2=0.95,
                    eps_root=1e-12,
                    mu_dtype=jnp.bfloat16,
                    weight_decay=0.1,
                    mask=is_matrix,
                    nesterov=True,
                    rules=(gs.rules.global_norm(1.0),),
                ),
            ),
        ],
        numbers={"learning_rate": RATE, "weight_decay": BELOW_ZERO, **ADAM},
        required={"learning_rate": 1e-3},
    ),
]
