"""Recipes that see sizes: trust ratios, matrices, two-sided protection, averages of iterates."""

import numpy as np
import optax

import gradstable as gs
from tests.registry.entry import BELOW_ZERO, DECAY, NOT_POSITIVE, Case, Entry
from tests.registry.moments import ADAM
from tests.registry.recipes import RATE

FAMILY = "Recipes"

_OPTAX_MAKES_A_NAN = {"debug_switches": "optax's own average makes a NaN for a branch not taken"}
_PARTITION = {"map_params": "optax's own partition has masked nodes where a part has no leaf"}

ENTRIES = [
    Entry(
        "moments.scale_by_muon",
        "Modern moments",
        source="Jordan 2024",
        promise="the update of a matrix has a spectral norm of about 1, whatever the gradient",
        weakness="a spike of 1000 sets the direction for 76 steps; noise is amplified by up to 485",
        cases=[Case("scale_by_muon", gs.moments.scale_by_muon())],
        numbers={
            "beta": DECAY,
            "eps": BELOW_ZERO,
            "ns_steps": (0, -1, 2.5, np.inf),
            "consistent_rms": NOT_POSITIVE,
        },
        optional=frozenset({"consistent_rms"}),
    ),
    Entry(
        "muon",
        FAMILY,
        source="Jordan 2024; Liu 2025, arXiv:2502.16982",
        promise="Muon for matrices and Adam for the rest, behind the guard",
        weakness="a language model's head is a matrix by its shape, and should go to Adam",
        cases=[Case("muon", gs.muon(1e-3), _PARTITION)],
        numbers={
            "learning_rate": RATE,
            "adam_learning_rate": RATE,
            "beta": DECAY,
            "eps": BELOW_ZERO,
            "ns_steps": (0, -1, 2.5, np.inf),
            "weight_decay": BELOW_ZERO,
            "adam_weight_decay": BELOW_ZERO,
            "adam_b1": DECAY,
            "adam_b2": DECAY,
            "adam_eps_root": BELOW_ZERO,
            "consistent_rms": NOT_POSITIVE,
        },
        optional=frozenset({"adam_learning_rate", "consistent_rms"}),
        required={"learning_rate": 1e-3},
    ),
    Entry(
        "lamb",
        FAMILY,
        source="You 2019, arXiv:1904.00962",
        promise="parameters grow by at most a factor of 1 + rate per step, behind the guard",
        weakness="as scale_by_trust_ratio",
        cases=[Case("lamb", gs.lamb(1e-3))],
        numbers={"learning_rate": RATE, "weight_decay": BELOW_ZERO, **ADAM},
        required={"learning_rate": 1e-3},
    ),
    Entry(
        "lars",
        FAMILY,
        source="You 2017, arXiv:1708.03888",
        promise="every step is as long as the rate times its parameters, behind the guard",
        weakness="as scale_by_trust_ratio; momentum adds up ten such steps",
        cases=[Case("lars", gs.lars(1e-3, nesterov=True))],
        numbers={
            "learning_rate": RATE,
            "weight_decay": BELOW_ZERO,
            "trust_coefficient": NOT_POSITIVE,
            "eps": BELOW_ZERO,
            "momentum": DECAY,
        },
        required={"learning_rate": 1e-3},
    ),
    Entry(
        "stable_adamw",
        FAMILY,
        source="Ours",
        promise="whatever the gradients, a leaf grows at most by a factor 1 + max_ratio per step",
        weakness="a leaf that starts at zero needs 35 steps to reach an RMS of 0.01; Adam needs 10",
        cases=[Case("stable_adamw", gs.stable_adamw(1e-3))],
        numbers={
            "learning_rate": RATE,
            "b1": DECAY,
            "b2": DECAY,
            "eps": NOT_POSITIVE,
            "weight_decay": BELOW_ZERO,
            "max_rms": NOT_POSITIVE,
            "max_ratio": NOT_POSITIVE,
            "floor": NOT_POSITIVE,
            "relative_floor": (*BELOW_ZERO, 1.5),
        },
        required={"learning_rate": 1e-3},
    ),
    Entry(
        "recipes.schedule_free",
        FAMILY,
        source="Defazio 2024, arXiv:2405.15682",
        promise="a bad gradient moves neither iterate nor average; the average is kept in float32",
        weakness="parameters in bfloat16 pass their rounding on to the average",
        cases=[
            Case(
                "schedule_free", gs.recipes.schedule_free(optax.sgd(1e-2), 1e-2), _OPTAX_MAKES_A_NAN
            )
        ],
        numbers={
            "learning_rate": RATE,
            "b1": (0.0, *DECAY),
            "weight_lr_power": (-1.0, np.inf),
        },
        required={"inner": optax.sgd(1e-2), "learning_rate": 1e-2},
    ),
    Entry(
        "recipes.schedule_free_adamw",
        FAMILY,
        source="Defazio 2024, arXiv:2405.15682",
        promise="as schedule_free",
        weakness="as schedule_free; a quiet period leaves nu stale: the next step can be 32 rates",
        cases=[
            Case(
                "schedule_free_adamw",
                gs.recipes.schedule_free_adamw(1e-3, warmup_steps=5),
                _OPTAX_MAKES_A_NAN,
            )
        ],
        numbers={
            "learning_rate": RATE,
            "warmup_steps": (0, -1, 2.5),
            "b1": (0.0, *DECAY),
            "b2": DECAY,
            "eps": BELOW_ZERO,
            "weight_decay": BELOW_ZERO,
            "weight_lr_power": (-1.0, np.inf),
        },
        optional=frozenset({"warmup_steps"}),
        required={"learning_rate": 1e-3},
    ),
]

OTHERS = ("recipes.schedule_free_eval_params",)
