"""AGGC as published, and what is known against it, on scalars."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradstable as gs
from gradstable._src.rules.group_norm import module_of
from gradstable.rules import group_norm
from tests.oracles.group_norm import group_norm as oracle
from tests.rules.leaf_norms import lognormal, run

NAMES = ["query", "value", "query", "mlp"]
PARAMS = [{name: {"kernel": jnp.ones(())}} for name in NAMES]
LIBRARY = {"high": 1.0, "low": 1.0, "decay": 0.98, "min_norm": 0.0, "min_scale": 0.0}


@pytest.mark.parametrize(
    "options",
    [
        {},
        LIBRARY,
        {"raise_small": True, "total_steps": 300},
        {"raise_small": True, "max_scale": np.inf, "min_norm": 0.5, "min_scale": 0.2, "high": 2.0},
    ],
)
def test_equals_the_float64_oracle(options: dict[str, Any]) -> None:
    norms = lognormal(300, 0.5, leaves=4, seed=2) * [1e-2, 1.0, 1e-2, 1e3]
    norms[100, 1] *= 1e4
    norms[50:53, 0] = norms[50:53, 2] = 0.0
    scales, _ = run(group_norm(**options), norms, PARAMS)
    # On the edge of a limit float32 may fall either way.
    same = np.isclose(scales, oracle(norms, NAMES, **options), rtol=2e-5)
    assert same.mean() >= 0.999


def test_one_group_is_one_norm_for_all_and_one_leaf_a_group_is_itself() -> None:
    norms = lognormal(50, 0.5, leaves=3)
    together, _ = run(group_norm(groups=lambda path: "all"), norms)
    whole, _ = run(group_norm(), np.linalg.norm(norms, axis=1))
    np.testing.assert_allclose(together, np.broadcast_to(whole, (50, 3)), rtol=1e-5)
    apart, _ = run(group_norm(groups=lambda path: path), norms)
    for leaf in range(3):
        alone, _ = run(group_norm(), norms[:, leaf])
        np.testing.assert_allclose(apart[:, leaf], alone[:, 0], rtol=1e-5)


def test_groups_by_function_tree_and_default_are_the_same() -> None:
    norms = lognormal(20, 0.5, leaves=4)
    names = [{name: {"kernel": name}} for name in NAMES]
    default, _ = run(group_norm(), norms, PARAMS)
    by_tree, _ = run(group_norm(groups=names), norms, PARAMS)
    by_rule, _ = run(group_norm(groups=lambda path: path.split("'")[1]), norms, PARAMS)
    np.testing.assert_array_equal(default, by_tree)
    np.testing.assert_array_equal(default, by_rule)
    assert (default[:, 0] == default[:, 2]).all()


@pytest.mark.parametrize(
    ("path", "module"),
    [
        ("['layers'][0]['query']['kernel']", "query"),
        (".layers.3.mlp.kernel.value", "mlp"),
        ("['blocks'][1]", "blocks"),
        ("", ""),
        ("[0]", ""),
    ],
)
def test_the_module_that_owns_a_leaf(path: str, module: str) -> None:
    assert module_of(path) == module


def test_weakness_a_spike_of_1000_passes_at_900() -> None:
    norms = lognormal(5_000, 0.3)
    norms[-1] = 1_000.0
    scales, _ = run(group_norm(), norms)
    assert scales[-1, 0] * 1_000.0 == pytest.approx(900.0, rel=1e-5)
    assert (scales < 1).mean() == pytest.approx(0.97, abs=0.01)


def test_weakness_without_the_bound_the_mean_can_only_fall() -> None:
    scales, state = run(group_norm(min_scale=0.0), np.ones(101))
    assert scales[100, 0] == pytest.approx(0.004, abs=5e-4)
    assert state.mean_norms[0] < 0.01


def test_pitfall_norms_of_groups_do_not_overflow() -> None:
    norms = np.full((30, 2), 1e25)
    same, _ = run(group_norm(groups=lambda path: "all"), norms)
    ones, _ = run(group_norm(groups=lambda path: "all"), np.ones((30, 2)))
    np.testing.assert_allclose(same, ones, rtol=1e-5)


def test_a_spike_in_one_group_leaves_the_others_alone() -> None:
    norms = np.ones((40, 4))
    calm, _ = run(group_norm(), norms, PARAMS)
    norms[20, 1] = 1e6
    scales, _ = run(group_norm(), norms, PARAMS)
    np.testing.assert_array_equal(scales[:, [0, 2, 3]], calm[:, [0, 2, 3]])


def test_wide_limits_are_the_identity() -> None:
    scales, _ = run(group_norm(high=1e30), lognormal(50, 1.0))
    assert (scales == 1.0).all()


def test_a_scale_above_one_raises_the_updates_and_is_told() -> None:
    tx = gs.clipping.clip_by(gs.rules.group_norm(raise_small=True, min_norm=10.0, high=1e6))
    g = {"a": jnp.ones(4), "b": jnp.ones(4, jnp.float16)}
    updates, state = tx.update(g, tx.init(g))
    jax.tree.map(lambda u: np.testing.assert_allclose(u, 1.1, rtol=1e-3), updates)
    health = gs.health(state)
    assert health.reason == gs.rules.Reason.GROUP_SCALED
    assert health.clipped == 1
    assert health.scale == pytest.approx(1.1)


@pytest.mark.parametrize(
    ("groups", "error", "told"),
    [
        ({"a": "x"}, ValueError, "groups must be a tree of names like the parameters"),
        ({"a": "x", "b": 3}, TypeError, r"group of the leaf \['b'\] must be a string, got 3"),
        (lambda path: None, TypeError, r"group of the leaf \['a'\] must be a string, got None"),
        (7, ValueError, "groups must be a tree"),
    ],
)
def test_wrong_groups_are_refused(groups: Any, error: type[Exception], told: str) -> None:
    with pytest.raises(error, match=told):
        gs.clipping.clip_by(gs.rules.group_norm(groups=groups)).init(
            {"a": jnp.ones(2), "b": jnp.ones(2)}
        )
