"""Rules that are put together, and the checks that always stand around them."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradstable as gs
from gradstable.rules import Reason, Rule, all_of, global_norm


def measure(norm: float) -> gs.Measure:
    value = jnp.float32(norm)
    return gs.Measure.of(value)


def fixed(**verdict: Any) -> Rule:
    """A rule that always says the same and counts how often it was asked."""

    def decide(measure: gs.Measure, state: jax.Array, **_: Any) -> tuple[gs.Verdict, jax.Array]:
        return gs.Verdict.of(**verdict), state + 1

    return Rule(init=lambda _: jnp.zeros((), jnp.int32), decide=decide)


def decide(*rules: Rule, norm: float = 1.0) -> tuple[gs.Verdict, Any]:
    rule = all_of(*rules)
    return rule.decide(measure(norm), rule.init({}))


def test_no_rules_accept_what_is_finite() -> None:
    verdict, _ = decide()
    assert verdict.accept
    assert verdict.scale == 1.0
    assert verdict.reason == Reason.OK


def test_accept_is_and_scale_is_min() -> None:
    verdict, _ = decide(fixed(scale=0.5, reason=40), fixed(scale=0.25, reason=41))
    assert verdict.accept
    assert verdict.scale == 0.25
    assert verdict.reason == 40
    verdict, _ = decide(fixed(scale=0.5, reason=40), fixed(accept=False, reason=41))
    assert not verdict.accept
    assert verdict.scale == 0.0
    assert verdict.reason == 41, "the reason of a rejection goes before that of a clip"
    verdict, _ = decide(fixed(accept=False, reason=40), fixed(accept=False, reason=41))
    assert verdict.reason == 40, "the first to reject gives the reason"


def test_threshold_is_the_lowest() -> None:
    verdict, _ = decide(global_norm(3.0), global_norm(2.0), norm=1.0)
    assert verdict.threshold == 2.0


@pytest.mark.parametrize("norm", [np.nan, np.inf])
def test_non_finite_is_rejected_and_never_reaches_a_statistic(norm: float) -> None:
    verdict, (count,) = decide(fixed(), norm=norm)
    assert not verdict.accept
    assert verdict.reason == Reason.NONFINITE
    assert count == 0


def test_norm_whose_square_overflows_is_rejected_unless_scaled() -> None:
    verdict, (count,) = decide(fixed(), norm=1e20)
    assert not verdict.accept
    assert verdict.reason == Reason.OVERFLOW
    assert count == 0
    verdict, _ = decide(global_norm(1.0), norm=1e20)
    assert verdict.accept
    np.testing.assert_allclose(verdict.scale, 1e-20, rtol=1e-6)


@pytest.mark.parametrize("scale", [np.nan, -np.inf, -1.0, 0.0])
def test_a_scale_that_cannot_be_applied_rejects(scale: float) -> None:
    verdict, _ = decide(fixed(scale=scale))
    assert not verdict.accept
    assert verdict.scale == 0.0


def test_rule_state_keeps_its_types() -> None:
    def drift(measure: gs.Measure, state: jax.Array, **_: Any) -> tuple[gs.Verdict, Any]:
        return gs.Verdict.of(), state.astype(jnp.float32) + 1.5

    _, (state,) = decide(Rule(init=lambda _: jnp.zeros((), jnp.int32), decide=drift))
    assert state.dtype == jnp.int32


def test_rule_that_changes_its_state_structure_is_named() -> None:
    grow = Rule(init=lambda _: {}, decide=lambda m, s, **_: (gs.Verdict.of(), {"n": m.norm}))
    with pytest.raises(ValueError, match=r"rule state.*\['n'\]"):
        decide(grow)


def test_context_reaches_the_rules() -> None:
    def on_loss(measure: gs.Measure, state: Any, *, value: jax.Array, **_: Any) -> Any:
        return gs.Verdict.of(accept=value < 10.0, reason=jnp.where(value < 10.0, 0, 50)), state

    import optax

    tx = gs.guard(optax.sgd(1.0), Rule(init=lambda _: (), decide=on_loss))
    state = tx.init(jnp.ones(2))
    _, good = tx.update(jnp.ones(2), state, value=jnp.float32(1.0))
    _, bad = tx.update(jnp.ones(2), state, value=jnp.float32(11.0))
    assert gs.health(good).rejected == 0
    assert gs.health(bad).rejected == 1
    assert gs.health(bad).reason == 50


def test_global_norm_equals_optax_where_optax_is_right() -> None:
    import optax

    rng = np.random.default_rng(0)
    tree = {"a": jnp.asarray(rng.normal(size=(5, 3)), jnp.float32), "b": jnp.ones((2,))}
    for limit in (0.1, 1.0, 100.0):
        ours, theirs = gs.clipping.clip_by_global_norm(limit), optax.clip_by_global_norm(limit)
        got, _ = ours.update(tree, ours.init(tree))
        want, _ = theirs.update(tree, theirs.init(tree))
        jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-6), got, want)


@pytest.mark.parametrize(
    ("gradient", "dtype"),
    [([300, 400], "float16"), ([3e20, 4e20], "float32"), ([3e37, 4e37], "float32")],
)
def test_clip_keeps_the_direction_where_optax_zeroes(gradient: list[float], dtype: str) -> None:
    """Pitfall: the norm overflows to inf, and g / inf = 0 silently."""
    g = jnp.asarray(gradient, dtype)
    tx = gs.clipping.clip_by_global_norm(1.0)
    clipped, state = tx.update(g, tx.init(g))
    np.testing.assert_allclose(np.asarray(clipped, np.float64), [0.6, 0.8], rtol=1e-3)
    assert gs.health(state).clipped == 1


def test_user_reasons() -> None:
    assert gs.rules.add_reason(50, "the loss was above ten") == 50
    assert gs.rules.add_reason(50, "the loss was above ten") == 50
    with pytest.raises(ValueError, match="50 already stands for"):
        gs.rules.add_reason(50, "something else")
    with pytest.raises(ValueError, match=r"\[32, 64\)"):
        gs.rules.add_reason(3, "mine")
