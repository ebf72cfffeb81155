"""Modern moment estimators, and the recipes built from them."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

import gradstable as gs
from tests.registry.entry import BELOW_ZERO, DECAY, NOT_POSITIVE, Case, Entry, bind, is_matrix

FAMILY = "Modern moments"
RECIPES = "Recipes"

RATE = {"learning_rate": (-1e-3, float("inf")), "weight_decay": BELOW_ZERO}
STEPS = (0, -1)
BETAS = {"b1": DECAY, "b2": DECAY, "eps": BELOW_ZERO}
ADAN = {**BETAS, "b3": DECAY, "eps_root": BELOW_ZERO}
ATAN2 = {"b1": DECAY, "b2": DECAY, "a": NOT_POSITIVE, "b": NOT_POSITIVE}
ADEMAMIX = {**ADAN, "alpha": BELOW_ZERO}
SOPHIA = {**BETAS, "gamma": NOT_POSITIVE, "clip_threshold": NOT_POSITIVE, "update_interval": STEPS}
S3 = {"b1": DECAY, "p": (0.5, 0.0, -1.0)}
SPAM = {
    **BETAS,
    "max_multiple": NOT_POSITIVE,
    "reset_every": STEPS,
    "reset_warmup_steps": BELOW_ZERO,
    "warmup_steps": BELOW_ZERO,
}
STABLE_SPAM = {**BETAS, "gamma1": DECAY, "gamma2": DECAY, "theta": DECAY, "reset_every": STEPS}


def diagonal(params: Any) -> Any:
    """Return a stand-in for the diagonal of a Hessian, negative in places as Hutchinson's."""
    return jax.tree.map(lambda p: jnp.cos(3.0 * p.astype(jnp.float32)), params)


NARROW = gs.moments.scale_by_laprop(mu_dtype=jnp.bfloat16, nu_dtype=jnp.float16)


def estimator(name: str, case: optax.GradientTransformation, *more: Case, **fields: Any) -> Entry:
    return Entry(f"moments.{name}", FAMILY, cases=[Case(name, case), *more], **fields)


def recipe(name: str, tx: optax.GradientTransformation, of: str, numbers: dict[str, Any]) -> Entry:
    return Entry(
        name if hasattr(gs, name) else f"recipes.{name}",
        RECIPES,
        source=SOURCES[of],
        promise=f"{of} behind the guard, at the cost of the guard alone",
        weakness=f"as {of}",
        cases=[Case(name, tx)],
        numbers={**RATE, **numbers},
        required={"learning_rate": 1e-3},
    )


SOURCES = {
    "scale_by_adan": "Xie 2022, arXiv:2208.06677",
    "scale_by_adopt": "Taniguchi 2024, arXiv:2411.02853",
    "scale_by_laprop": "Ziyin 2020, arXiv:2002.04839",
    "scale_by_adam_atan2": "Everett 2024, arXiv:2407.05872",
    "scale_by_ademamix": "Pagliardini 2024, arXiv:2409.03137",
    "scale_by_lion": "Chen 2023, arXiv:2302.06675",
    "scale_by_sophia": "Liu 2023, arXiv:2305.14342",
    "scale_by_s3": "Peng 2025, arXiv:2507.06464",
    "scale_by_spam": "Huang 2025, arXiv:2501.06842",
    "scale_by_stable_spam": "Huang 2025, arXiv:2502.17055",
}

ENTRIES = [
    estimator(
        "scale_by_adan",
        gs.moments.scale_by_adan(),
        source=SOURCES["scale_by_adan"],
        promise="a step is bounded by 1.21 in every coordinate",
        weakness="a spike of 1000 keeps steps below half their length for 957 steps",
        numbers=ADAN,
    ),
    estimator(
        "scale_by_adopt",
        gs.moments.scale_by_adopt(nesterov=True),
        source=SOURCES["scale_by_adopt"],
        promise="converges with any b2; a step is bounded by the fourth root of the steps before",
        weakness="a gradient is not in its own denominator: without the clip there is no bound",
        numbers=BETAS,
    ),
    estimator(
        "scale_by_laprop",
        gs.moments.scale_by_laprop(),
        Case("scale_by_laprop(narrow)", NARROW),
        source=SOURCES["scale_by_laprop"],
        promise="a step is bounded by 1/sqrt(1-b2) in every coordinate, for any two decay rates",
        weakness="the bound is wide: 31.6 with b2 = 0.999, for gradients that explode",
        numbers=BETAS,
    ),
    estimator(
        "scale_by_adam_atan2",
        gs.moments.scale_by_adam_atan2(),
        source=SOURCES["scale_by_adam_atan2"],
        promise="a step is bounded by 1.995 in every coordinate; no eps, scale-free",
        weakness="gradients below 1e-18, whose squares vanish, make full steps",
        numbers=ATAN2,
    ),
    estimator(
        "scale_by_ademamix",
        gs.moments.scale_by_ademamix(b3=gs.moments.half_life_schedule(0.9, transition_steps=10)),
        source=SOURCES["scale_by_ademamix"],
        promise="moments in float32 that nothing poisons",
        weakness="no bound: a weight whose gradient goes to zero eventually makes steps of 33",
        numbers=ADEMAMIX,
    ),
    Entry(
        "moments.half_life_schedule",
        FAMILY,
        source=SOURCES["scale_by_ademamix"],
        promise="a slow momentum that lengthens its memory step by step",
        weakness="in float32 a rate of 0.9999 is exact to 6e-4 of its distance to 1",
        numbers={"init_value": DECAY, "end_value": DECAY, "transition_steps": STEPS},
        required={"init_value": 0.9, "transition_steps": 10},
    ),
    estimator(
        "scale_by_lion",
        gs.moments.scale_by_lion(),
        source=SOURCES["scale_by_lion"],
        promise="a step is 1 in every coordinate",
        weakness="a spike of 1000 sets the sign for 237 steps, against all later gradients",
        numbers={"b1": DECAY, "b2": DECAY, "smooth_beta": NOT_POSITIVE},
    ),
    estimator(
        "scale_by_sophia",
        bind(gs.moments.scale_by_sophia(update_interval=2), hessian=diagonal),
        source=SOURCES["scale_by_sophia"],
        promise="a step is at most 1 in every coordinate, even where curvature is negative",
        weakness="a spike of 1000 makes full steps in its direction for 101 steps",
        numbers=SOPHIA,
    ),
    estimator(
        "scale_by_s3",
        gs.moments.scale_by_s3(),
        source=SOURCES["scale_by_s3"],
        promise="a step is at most 1 in every coordinate, by construction",
        weakness="after a spike of 1000, steps stay below a tenth of their length for 201 steps",
        numbers=S3,
    ),
    estimator(
        "scale_by_clipped_adam",
        gs.moments.scale_by_clipped_adam(units="layer", weight_decay=0.1, mask=is_matrix),
        source="Wortsman 2023, arXiv:2304.13013",
        promise="a leaf (or unit) that outgrows its second moment immediately takes a shorter step",
        weakness="after a spike of 1000, steps stay below half their length for 800 steps",
        numbers={**BETAS, "max_rms": NOT_POSITIVE, "weight_decay": BELOW_ZERO},
    ),
    estimator(
        "scale_by_spam",
        gs.moments.scale_by_spam(reset_every=3, warmup_steps=1, reset_warmup_steps=2),
        source=SOURCES["scale_by_spam"],
        promise="an entry is clipped by its own second moment, which is reset every 500 steps",
        weakness="a weight without gradient for 20 steps after a reset is frozen for the other 480",
        numbers=SPAM,
    ),
    estimator(
        "scale_by_stable_spam",
        gs.moments.scale_by_stable_spam(reset_every=3),
        source=SOURCES["scale_by_stable_spam"],
        promise="what enters Adam has a norm of at most 1.41 in each leaf",
        weakness="after a spike of a million, steps fall to a fortieth, below half for 94 steps",
        numbers=STABLE_SPAM,
    ),
    estimator(
        "clip_by_moment",
        gs.moments.clip_by_moment(warmup_steps=1),
        source="Huang 2025, arXiv:2501.06842",
        promise="no entry is above 71 times its root mean square, and a level shift is released",
        weakness="it costs an array the size of the parameters; a spike below 71 passes",
        numbers={"max_multiple": NOT_POSITIVE, "b2": DECAY, "warmup_steps": BELOW_ZERO},
    ),
    estimator(
        "cautious",
        gs.moments.cautious(gs.moments.scale_by_adam()),
        source="Liang 2024, arXiv:2411.16085",
        promise="no step against the gradient of the same step",
        weakness="one entry in a thousand that agrees makes a step of 1000 times its length",
        required={"inner": gs.moments.scale_by_adam()},
    ),
    Entry(
        "recipe",
        RECIPES,
        source="Ours",
        promise="any direction with decay and a rate behind the guard, at the cost of the guard",
        weakness="as the direction",
        cases=[
            Case(f"recipe({name})", gs.recipe(direction, 1e-3, weight_decay=0.1))
            for name, direction in {
                "laprop": gs.moments.scale_by_laprop(),
                "adam_atan2": gs.moments.scale_by_adam_atan2(),
                "s3": gs.moments.scale_by_s3(),
                "spam": gs.moments.scale_by_spam(),
                "stable_spam": gs.moments.scale_by_stable_spam(),
            }.items()
        ],
        numbers=RATE,
        optional=frozenset({"weight_decay"}),
        required={"direction": gs.moments.scale_by_laprop(), "learning_rate": 1e-3},
    ),
    recipe("adan", gs.adan(1e-3), "scale_by_adan", ADAN),
    recipe("adopt", gs.recipes.adopt(1e-3), "scale_by_adopt", BETAS),
    recipe("ademamix", gs.recipes.ademamix(1e-3), "scale_by_ademamix", ADEMAMIX),
    recipe("lion", gs.lion(1e-3), "scale_by_lion", {"b1": DECAY, "b2": DECAY}),
    recipe("sophia", bind(gs.recipes.sophia(1e-3), hessian=diagonal), "scale_by_sophia", SOPHIA),
]
