"""What users get wrong is told by the argument, its value and the remedy."""

import re
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import optax
import pytest

import gradstable as gs
from gradstable.rules import Rule

PARAMS = {"bias": jnp.ones(4), "kernel": jnp.ones((3, 4))}
GRADIENTS = {"bias": jnp.ones(4), "kernel": jnp.ones((3, 4))}
SGD = optax.sgd(0.1)


def update(tx: Any, updates: Any = GRADIENTS, params: Any = PARAMS, **extra_args: Any) -> Any:
    return tx.update(updates, tx.init(PARAMS), params, **extra_args)


def own_rule(decide: Callable[..., Any]) -> Rule:
    return Rule(init=lambda params: (), decide=decide)


CONSTRUCTION: dict[str, tuple[Callable[[], Any], str]] = {
    "rule before the optimizer": (
        lambda: gs.guard(gs.rules.log_mad(), optax.adamw(1e-3)),
        "inner must be .*got rules.log_mad() of type Rule.*after the optimizer",
    ),
    "optimizer that was not made": (
        lambda: gs.guard(optax.adamw),
        "inner must be .*adamw.*call it first, as in adamw(...)",
    ),
    "bare function for a transform": (
        lambda: gs.guard(lambda updates, params: updates),
        "inner must be .*<lambda>.*wrap it in optax.stateless",
    ),
    "learning rate for an optimizer": (
        lambda: gs.guard(3e-4),
        "inner must be .*such as optax.adamw(3e-4), got 0.0003 of type float",
    ),
    "rules in a list": (
        lambda: gs.guard(SGD, [gs.rules.log_mad()]),
        "rule 0 must be .*got [rules.log_mad()] of type list.*gs.guard(optimizer, *rules)",
    ),
    "clip for a rule": (
        lambda: gs.guard(SGD, gs.clipping.clip_by_global_norm(1.0)),
        "rule 0 must be .*got clipping.clip_by_global_norm(1.0).*optax.chain(transform, optimizer)",
    ),
    "limit for a rule": (
        lambda: gs.guard(SGD, 1.0),
        "rule 0 must be .*got 1.0 of type float.*gs.rules.global_norm(limit)",
    ),
    "norm for the rule of that name": (
        lambda: gs.guard(SGD, gs.global_norm(1.0)),
        "rule 0 must be .*got Array(1., .*gs.rules.global_norm(limit)",
    ),
    "one rule for several": (
        lambda: gs.adamw(1e-3, rules=gs.rules.log_mad()),
        "rules must be a tuple of rules such as (gs.rules.log_mad(),), got rules.log_mad()",
    ),
    "transform for rules": (
        lambda: gs.muon(1e-3, rules=gs.clipping.clip_by_global_norm(1.0)),
        "rules must be a tuple of rules such as .*got clipping.clip_by_global_norm(1.0)",
    ),
    "a list of rules for several": (
        lambda: gs.rules.all_of([gs.rules.log_mad()]),
        "rule 0 must be a gradstable.rules.Rule .*got [rules.log_mad()] of type list",
    ),
    "learning rate as text": (
        lambda: gs.adamw("1e-3"),
        "learning_rate must be a real number, or a schedule .*got '1e-3' of type str.*float(...)",
    ),
    "no learning rate": (
        lambda: gs.adamw(None),
        "learning_rate must be a real number, or a schedule .*got None",
    ),
    "negative learning rate": (
        lambda: gs.sgd(-0.1),
        "learning_rate must be a number >= 0, got -0.1.*pass the rate as a positive number",
    ),
    "percentage for a decay rate": (
        lambda: gs.adamw(1e-3, b2=99.9),
        "b2 must be a number >= 0 and < 1, got 99.9",
    ),
    "dtype that is none": (
        lambda: gs.adamw(1e-3, mu_dtype="bf16"),
        "dtype of mu must be a floating-point dtype such as jnp.bfloat16, got 'bf16'",
    ),
    "integer dtype": (
        lambda: gs.moments.scale_by_adam(nu_dtype=jnp.int8),
        "dtype of nu must be a floating-point dtype such as jnp.bfloat16, got .*int8",
    ),
    "units that are none": (
        lambda: gs.clipping.clip_by(gs.rules.unit_norm(units="row")),
        "units must be one of ('flax', 'leaf', 'output', .*got 'row'",
    ),
    "axes in a list": (
        lambda: gs.centering.centralize(units=[0]),
        "units must be one of .*a tuple of axes .*got [0] of type list",
    ),
    "name of a curve": (
        lambda: gs.clipping.soft_clip("tan"),
        "kind must be one of ('tanh', .*got 'tan'",
    ),
    "argument by position": (
        lambda: gs.adamw(1e-3, 0.9),  # pyright: ignore[reportCallIssue]
        "adamw() takes 1 positional argument",
    ),
    "argument of torch": (
        lambda: gs.adamw(1e-3, betas=(0.9, 0.95)),  # pyright: ignore[reportCallIssue]
        "adamw() got .*'betas'",
    ),
}

IN_UPDATE: dict[str, tuple[Callable[[], Any], str]] = {
    "no params": (
        lambda: update(gs.stable_adamw(1e-3), params=None),
        "stable_adamw .*needs .*update(updates, state, params)",
    ),
    "no params for a rule": (
        lambda: update(gs.guard(SGD, gs.rules.unit_norm()), params=None),
        "rule .*needs .*update(updates, state, params)",
    ),
    "no loss": (
        lambda: update(gs.rate.reduce_on_plateau()),
        "reduce_on_plateau .*value is missing.*update(updates, state, params, value=loss)",
    ),
    "no loss for a rule": (
        lambda: update(gs.guard(SGD, gs.rules.loss_spike())),
        "loss_spike .*value is missing.*update(updates, state, params, value=loss)",
    ),
    "loss of each sample": (
        lambda: update(gs.rate.reduce_on_plateau(), value=jnp.ones(8)),
        "value must be a scalar, got shape (8,): take its mean",
    ),
    "loss with what goes beside it": (
        lambda: update(gs.rate.reduce_on_plateau(), value=(jnp.float32(1.0), {"accuracy": 0.5})),
        "value must be a number, got .*'accuracy': 0.5.*value=loss), without .*has_aux=True",
    ),
    "loss as text": (
        lambda: update(gs.rate.reduce_on_plateau(), value="2.3"),
        "value must be a number, got '2.3' of type str",
    ),
    "state and gradients in the wrong order": (
        lambda: gs.guard(SGD).update(gs.guard(SGD).init(PARAMS), GRADIENTS, PARAMS),
        "state passed to guard(...).update .*got dict. Call update(updates, state, params)",
    ),
    "state of the inner optimizer": (
        lambda: gs.guard(optax.adam(0.1)).update(GRADIENTS, optax.adam(0.1).init(PARAMS), PARAMS),
        "must come from guard(...).init (GuardState), got tuple",
    ),
    "value and gradients": (
        lambda: update(gs.guard(SGD), (jnp.ones(()), GRADIENTS)),
        "updates[0] has no counterpart in params.*(value, gradients) of jax.value_and_grad",
    ),
    "gradients of some parameters": (
        lambda: update(gs.guard(SGD), {"bias": jnp.ones(4)}),
        "params['kernel'] has no counterpart in updates.*with the gradients of params",
    ),
    "transposed gradients": (
        lambda: update(gs.guard(SGD), {**GRADIENTS, "kernel": jnp.ones((4, 3))}),
        "updates['kernel'] has shape (4, 3), but params['kernel'] has shape (3, 4)",
    ),
    "no gradients": (
        lambda: update(gs.guard(SGD), None),
        "updates, which is NoneType, has no counterpart in params.*with the gradients of params",
    ),
    "integer gradients": (
        lambda: update(gs.guard(SGD), {**GRADIENTS, "bias": jnp.ones(4, jnp.int32)}),
        "updates['bias'] has dtype int32.*optax.masked",
    ),
    "text for a gradient": (
        lambda: update(gs.guard(SGD), {**GRADIENTS, "bias": "float32"}),
        "updates['bias'] must be an array, got 'float32' of type str",
    ),
    "rule without a verdict": (
        lambda: update(gs.guard(SGD, gs.rules.log_mad(), own_rule(lambda m, s, **_: (True, s)))),
        "decide of rule 1 must return (verdict, state).*gs.Verdict.of(accept=...), got (True, ())",
    ),
    "rule without a state": (
        lambda: update(gs.guard(SGD, own_rule(lambda m, s, **_: gs.Verdict.of()))),
        "decide of rule 0 must return (verdict, state).*of type Verdict",
    ),
}

READING: dict[str, tuple[Callable[[], Any], str]] = {
    "health of an unguarded optimizer": (
        lambda: gs.health(optax.adamw(1e-3).init(PARAMS)),
        "no guard found .*gradstable.guard(optax.adamw(3e-4)), and pass the state",
    ),
    "health of a transform": (
        lambda: gs.health(gs.guard(SGD)),
        "no guard found .*pass the state of the wrapped one",
    ),
    "average of another optimizer": (
        lambda: gs.recipes.schedule_free_eval_params(SGD.init(PARAMS), PARAMS),
        "opt_state must hold one ScheduleFreeState, as of gs.recipes.schedule_free, got 0",
    ),
}

MISTAKES = {**CONSTRUCTION, **IN_UPDATE, **READING}


def pattern(told: str) -> str:
    """Return a regex in which all but ``.*`` stands for itself."""
    return ".*".join(map(re.escape, told.split(".*")))


@pytest.mark.parametrize("what", MISTAKES)
def test_mistake_is_told_with_its_remedy(what: str) -> None:
    call, told = MISTAKES[what]
    with pytest.raises((TypeError, ValueError)) as raised:
        call()
    assert re.search(pattern(told), str(raised.value), flags=re.DOTALL), str(raised.value)


def test_none_for_a_frozen_leaf_is_no_mistake() -> None:
    updates, _ = update(gs.guard(SGD), {**GRADIENTS, "bias": None})
    assert updates["bias"] is None
