"""Every rule for leaves, units and groups around a whole optimizer: act, hold, count, explain."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradstable as gs
from gradstable._src.core.reasons import sentence
from gradstable.rules import Reason, Rule

PARAMS = {"calm": {"kernel": jnp.ones((3, 4))}, "wild": {"kernel": jnp.ones((3, 4))}}
CALM = jax.tree.map(lambda p: np.full(p.shape, 1e-4, np.float32), PARAMS)
STEPS, SPIKE_AT, NAN_AT = 12, 8, 10

# Rule, reason for a spike in one leaf, factor of the calm leaf and of the wild one at the spike.
RULES: dict[str, tuple[Rule, Reason, float, float]] = {
    "block_norm": (gs.rules.block_norm(1.0), Reason.BLOCK_CLIPPED, 1.0, 1.0 / 3.4641e3),
    "block_rms": (gs.rules.block_rms(0.5, units="layer"), Reason.BLOCK_CLIPPED, 1.0, 0.5e-3),
    "unit_norm": (gs.rules.unit_norm(), Reason.UNIT_CLIPPED, 1.0, 1e-5),
    "adagc": (gs.rules.adagc(warmup_steps=4), Reason.HISTORY_CLIPPED, 1.0, 1.04e-7),
    "group_norm": (gs.rules.group_norm(high=1.5, decay=0.5), Reason.GROUP_SCALED, 1.0, 0.9),
    "gradient_stabilizer": (
        gs.rules.gradient_stabilizer(b1=0.0, b2=0.0),
        Reason.NORM_STABILIZED,
        1.0 / 3.4641e-4,
        1.0 / 3.4641e3,
    ),
}


def weather() -> Any:
    """Return equal gradients with a spike in one leaf, and later a NaN in it."""
    steps: Any = jax.tree.map(lambda leaf: np.broadcast_to(leaf, (STEPS, *leaf.shape)).copy(), CALM)
    steps["wild"]["kernel"][SPIKE_AT] = 1e3
    steps["wild"]["kernel"][NAN_AT, 1, 1] = np.nan
    return steps


@pytest.mark.parametrize("name", RULES)
def test_a_spike_is_scaled_and_a_nan_is_held(name: str) -> None:
    rule, reason, of_calm, of_wild = RULES[name]
    tx = gs.guard(optax.trace(0.0), rule)

    def step(carry: Any, g: Any) -> Any:
        params, state = carry
        updates, state = tx.update(g, state, params)
        return (optax.apply_updates(params, updates), state), (state, updates)

    start = PARAMS, tx.init(PARAMS)
    (_, last), trail = jax.jit(lambda c, g: jax.lax.scan(step, c, g))(start, weather())
    states, updates = jax.device_get(trail)

    spike = jax.tree.map(lambda leaf: leaf[SPIKE_AT], updates)
    np.testing.assert_allclose(spike["calm"]["kernel"], 1e-4 * of_calm, rtol=1e-3)
    np.testing.assert_allclose(spike["wild"]["kernel"], 1e3 * of_wild, rtol=1e-3)
    health: gs.Health = jax.tree.map(lambda leaf: leaf[SPIKE_AT], gs.health(states))
    assert health.reason == reason
    assert health.accepted == SPIKE_AT + 1
    assert health.scale == pytest.approx(min(of_calm, of_wild), rel=1e-3)

    broken = jax.tree.map(lambda leaf: leaf[NAN_AT], updates)
    assert all((leaf == 0).all() for leaf in jax.tree.leaves(broken))
    for field in ("rule_state", "inner_state"):
        kept = jax.tree.map(lambda leaf: leaf[NAN_AT], getattr(states, field))
        before = jax.tree.map(lambda leaf: leaf[NAN_AT - 1], getattr(states, field))
        jax.tree.map(np.testing.assert_array_equal, kept, before)

    total = gs.health(last)
    assert (int(total.rejected), int(total.last_rejected)) == (1, NAN_AT + 1)
    assert int(last.ledger.clipped_by[reason]) == int(total.clipped) >= 1
    told = gs.explain(last, PARAMS)
    assert f"clipped because {sentence(reason)}." in told
    assert "first in\n['wild']" in told or "first in ['wild']" in told


def test_rules_for_units_leaves_and_the_tree_act_together() -> None:
    """The factor of every unit is the least that any rule gives it; factors above 1 multiply."""
    rules = (gs.rules.unit_norm(), gs.rules.block_norm(1e-3), gs.rules.global_norm(10.0))
    tx = gs.guard(optax.sgd(1.0), *rules)
    g = jax.tree.map(jnp.asarray, CALM)
    g["wild"]["kernel"] = g["wild"]["kernel"].at[:, 0].set(1e3)
    updates, state = jax.jit(tx.update)(g, tx.init(PARAMS), PARAMS)
    # The broken column: 1e-3 / sqrt(3) by block_norm, less than by unit_norm and global_norm.
    factor = 1e-3 / (1e3 * np.sqrt(3))
    np.testing.assert_allclose(updates["wild"]["kernel"][:, 0], -1e3 * factor, rtol=1e-4)
    # The others share the block, and the global norm, with it.
    np.testing.assert_allclose(updates["wild"]["kernel"][:, 1], -1e-4 * factor, rtol=1e-4)
    np.testing.assert_allclose(updates["calm"]["kernel"], -1e-4 * 10 / 1732.05, rtol=1e-4)
    assert gs.health(state).reason == Reason.UNIT_CLIPPED, "the first rule that acts is named"


def test_one_nan_zeroes_all_of_a_step() -> None:
    g = jax.tree.map(jnp.asarray, CALM)
    g["wild"]["kernel"] = g["wild"]["kernel"].at[0, 0].set(jnp.nan)
    clips = (
        gs.clipping.clip_by(gs.rules.unit_norm()),
        gs.clipping.clip_by(gs.rules.adagc()),
        gs.clipping.clip_by(gs.rules.group_norm()),
    )

    def run(g: Any) -> Any:
        return [tx.update(g, tx.init(PARAMS), PARAMS) for tx in clips]

    for updates, state in jax.jit(run)(g):
        assert all((leaf == 0).all() for leaf in jax.tree.leaves(updates))
        assert gs.health(state).rejected == 1
