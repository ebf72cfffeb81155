"""Every public name, and for what makes a transform, the configurations it is tested in."""

import dataclasses
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import optax

import gradstable as gs

# What the inner optimizer breaks by itself, and a wrapper cannot mend.
_INNER_PROMOTES = {"strict_promotion": "optax's own bias correction mixes floats and integers"}


@dataclasses.dataclass(frozen=True)
class Case:
    """A transform in one configuration; ``breaks`` tells why a check cannot pass."""

    name: str
    tx: optax.GradientTransformation
    breaks: Mapping[str, str] = dataclasses.field(default_factory=dict)


def _is_matrix(params: optax.Params) -> optax.Params:
    return jax.tree.map(lambda param: jnp.ndim(param) > 1, params)


TRANSFORMS: dict[str, list[Case]] = {
    "guard": [
        Case("guard(adamw)", gs.guard(optax.adamw(1e-3)), _INNER_PROMOTES),
        Case("guard(sgd, momentum)", gs.guard(optax.sgd(0.1, momentum=0.9))),
        Case(
            "guard(sgd, two rules)",
            gs.guard(optax.sgd(0.1), gs.rules.global_norm(1.0), gs.rules.log_mad()),
        ),
    ],
    "adamw": [
        Case("adamw", gs.adamw(1e-3)),
        Case(
            "adamw(all options)",
            gs.adamw(
                optax.linear_schedule(1e-2, 1e-3, 10),
                b2=0.95,
                eps_root=1e-12,
                mu_dtype=jnp.bfloat16,
                weight_decay=0.1,
                mask=_is_matrix,
                nesterov=True,
                rules=(gs.rules.global_norm(1.0),),
            ),
        ),
    ],
    "scale_by_adam": [
        Case("scale_by_adam", gs.scale_by_adam()),
        Case(
            "scale_by_adam(bfloat16, nesterov)",
            gs.scale_by_adam(mu_dtype=jnp.bfloat16, nu_dtype=jnp.bfloat16, nesterov=True),
        ),
    ],
    "clip_by_global_norm": [Case("clip_by_global_norm", gs.clip_by_global_norm(1.0))],
    "clip_by_log_mad": [Case("clip_by_log_mad", gs.clip_by_log_mad())],
    "clip_by_rule": [Case("clip_by_rule()", gs.clip_by_rule())],
}

# A rule is tested by the transform that is made of it: the name of its case.
RULES = {
    "rules.all_of": "guard(sgd, two rules)",
    "rules.global_norm": "clip_by_global_norm",
    "rules.log_mad": "clip_by_log_mad",
}

NOT_TRANSFORMS = {
    "GuardState",
    "Health",
    "Measure",
    "TrainingDiverged",
    "Verdict",
    "check",
    "explain",
    "global_norm",
    "health",
    "rules",
    "rules.LogMadState",
    "rules.Reason",
    "rules.Rule",
    "rules.add_reason",
    "testing",
    "testing.CHECKS",
    "testing.assert_contract",
}


def public_names() -> list[str]:
    """Return every name that ``gradstable`` and its public rooms export."""
    names = list(gs.__all__)
    for room in ("rules", "testing"):
        names += [f"{room}.{name}" for name in getattr(gs, room).__all__]
    return names


def cases() -> list[Case]:
    """Return all configurations of all transforms."""
    return [case for made in TRANSFORMS.values() for case in made]
