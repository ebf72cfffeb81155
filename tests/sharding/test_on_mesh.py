"""Every public transform gives on eight devices what it gives on one."""

import functools
import re
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import optax
import pytest
from jax.sharding import Mesh

import gradstable as gs
from gradstable._src.testing.contract import failure, on_mesh
from gradstable._src.testing.mesh import mesh_params
from tests.frames import WHOLE
from tests.registry import Case, entries
from tests.registry.entry import for_specs

# Inside ``jax.shard_map`` these are something else, as their docstrings say.
NOT_INSIDE = {
    "average": "gradients along its axis are those of different examples, and become their mean",
    "compress_moments": "blocks and rounding are those of the part that a device holds",
    "govern": "samples are those of the part that a device holds",
    "record": "samples are those of the part that a device holds",
    "protect": "it has a record",
}
# In every run: under ``jit``, where XLA splits the work, what names shardings or has a branch to
# itself; explicit axes for the few that could fail there and for reasons of their own (the contract
# has their types for all); parts of leaves for what stands for its frame and all that look at more
# than one entry. All others are elementwise, or made of these.
AUTO = {
    "accumulate",
    "add_noise",
    "cap_trust",
    "compress_moments",
    "govern",
    "guard",
    "record",
    "rollback",
    "scale_by_muon",
    "stable_adamw",
    "stochastic_round",
    "unit_norm",
}
EXPLICIT = {"unit_norm", "guard", "muon", "rollback", "stable_adamw"}
REDUCING = {
    "cap_trust",
    "centralize",
    "block_rms",
    "clip_by_clippy",
    "mean_stabilize",
    "normalize",
    "scale_by_stable_spam",
    "scale_by_trust_ratio",
    "standardize",
}


@pytest.fixture(scope="module")
def mesh() -> Mesh:
    return jax.make_mesh((2, 4), ("data", "fsdp"))


def checks() -> Iterator[Any]:
    for entry in entries():
        for case in entry.cases:
            first = case is entry.cases[0]
            chosen_in = {
                "auto_mesh": first and entry.short in AUTO,
                "explicit_mesh": first and entry.short in EXPLICIT,
                "shard_map": (first and entry.short in WHOLE) or entry.short in REDUCING,
            }
            for name, chosen in chosen_in.items():
                if name == "shard_map" and entry.short in NOT_INSIDE:
                    continue
                marks = [] if chosen else [pytest.mark.slow]
                yield pytest.param(case, name, id=f"{name}-{case.name}", marks=marks)


@functools.cache
def checks_of(tx: optax.GradientTransformation, mesh: Mesh) -> dict[str, Any]:
    """Return the checks of a transform, which share what one device makes."""
    return on_mesh(tx, mesh, for_specs=lambda specs: for_specs(tx, specs))


@pytest.mark.parametrize(("case", "name"), list(checks()))
def test_numbers_are_those_of_one_device(case: Case, name: str, mesh: Mesh) -> None:
    broken = failure(checks_of(case.tx, mesh)[name], case.tx)
    if broken is not None:
        raise broken


def test_names_that_are_left_out_exist() -> None:
    names = {entry.short for entry in entries()}
    assert {*AUTO, *NOT_INSIDE, *REDUCING, *EXPLICIT} <= names


def test_contract_runs_on_a_mesh(mesh: Mesh) -> None:
    skip = gs.testing.CHECKS
    gs.testing.assert_contract(
        gs.clipping.clip_by_global_norm(1.0),
        skip=skip,
        mesh=mesh,
        for_specs=lambda specs: gs.clipping.clip_by_global_norm(1.0, axis_name=specs),
    )


def test_contract_on_a_mesh_finds_what_is_local(mesh: Mesh) -> None:
    """A norm of the part that each device holds is what optax's clip takes there."""
    with pytest.raises(AssertionError, match=r"1 of 3 promises") as raised:
        gs.testing.assert_contract(
            gs.clipping.clip_by_global_norm(1.0),
            skip=gs.testing.CHECKS,
            mesh=mesh,
            for_specs=lambda _: gs.clipping.clip_by_global_norm(1.0),
        )
    assert "shard_map" in str(raised.value)


def test_contract_on_a_mesh_finds_state_that_is_lost(mesh: Mesh) -> None:
    """A raveled leaf cannot stay split: on explicit axes JAX refuses it."""

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        del params
        total = sum(jnp.sum(jnp.sort(leaf.ravel())) for leaf in jax.tree.leaves(updates))
        return jax.tree.map(lambda g: g + total, updates), state

    tx = optax.GradientTransformation(lambda _: optax.EmptyState(), update)
    with pytest.raises(AssertionError, match="explicit_mesh"):
        gs.testing.assert_contract(tx, skip={*gs.testing.CHECKS, "auto_mesh"}, mesh=mesh)


def test_own_parameters_are_split_where_they_can_be(mesh: Mesh) -> None:
    params = {"table": jnp.ones((64, 3)), "odd": jnp.ones((5,))}
    gs.testing.assert_contract(
        gs.moments.scale_by_adam(), skip={*gs.testing.CHECKS, "shard_map"}, params=params, mesh=mesh
    )


def test_names_of_mesh_checks_can_be_skipped_and_are_told(mesh: Mesh) -> None:
    with pytest.raises(ValueError, match=re.escape("'auto_mesh', 'explicit_mesh', 'shard_map'")):
        gs.testing.assert_contract(gs.moments.scale_by_adam(), skip=["explicit"], mesh=mesh)


def test_parameters_of_the_checks_can_be_split(mesh: Mesh) -> None:
    shardings = gs.sharding.spread(mesh_params(mesh), mesh.axis_names, mesh=mesh, min_size=1)
    split = {name for name, sharding in shardings.items() if not sharding.is_fully_replicated}
    assert split == {"bias", "kernel", "output"}
