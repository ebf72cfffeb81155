"""Moment estimators of the Adam family and before it."""

import jax.numpy as jnp

import gradstable as gs
from tests.registry.entry import BELOW_ZERO, DECAY, Case, Entry

FAMILY = "Moments"

ADAM = {"b1": DECAY, "b2": DECAY, "eps": BELOW_ZERO, "eps_root": BELOW_ZERO}

ENTRIES = [
    Entry(
        "scale_by_adam",
        FAMILY,
        source="Kingma 2014, arXiv:1412.6980",
        promise="a step is bounded by (1-b1)/sqrt(1-b2)/sqrt(1-b1^2/b2) in every coordinate",
        weakness="with b2 = 0.999 a quiet time leaves nu stale: the next gradient steps 7.27 wide",
        cases=[
            Case("scale_by_adam", gs.scale_by_adam()),
            Case(
                "scale_by_adam(bfloat16, nesterov)",
                gs.scale_by_adam(mu_dtype=jnp.bfloat16, nu_dtype=jnp.bfloat16, nesterov=True),
            ),
        ],
        numbers=ADAM,
    ),
]
