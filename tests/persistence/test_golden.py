"""Checkpoints of older versions are loaded bit for bit, and training goes on from them."""

import functools
from typing import Any

import jax
import numpy as np
import pytest
from orbax.checkpoint import v1 as ocp

import gradstable as gs
from tests.persistence import golden
from tests.persistence.digest import digest

EXPECTED = golden.expected()


@functools.cache
def from_orbax() -> Any:
    here = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    target = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=here), golden.targets()
    )
    return ocp.load(golden.FOLDER / "orbax", target)


def test_every_run_has_a_checkpoint() -> None:
    assert EXPECTED.keys() == golden.RUNS.keys(), "python -m tests.persistence.golden"
    assert {path.stem for path in golden.FOLDER.glob("*.msgpack")} == golden.RUNS.keys()


@pytest.mark.parametrize("name", golden.RUNS)
def test_schema_fits(name: str) -> None:
    gs.check_schema(EXPECTED[name]["schema"], golden.targets()[name])


@pytest.mark.parametrize("name", golden.RUNS)
def test_bits_are_those_that_were_saved(name: str) -> None:
    assert digest(golden.load_msgpack(name)) == EXPECTED[name]["sha256"]
    assert digest(from_orbax()[name]) == EXPECTED[name]["sha256"]


@pytest.mark.parametrize("name", golden.RUNS)
def test_training_goes_on(name: str) -> None:
    run = golden.RUNS[name]
    saved = jax.tree.map(jax.numpy.asarray, golden.load_msgpack(name))
    assert int(gs.health(saved["opt_state"]).rejected) == (name != "accumulate")
    updates, _ = golden.advance(run, saved, golden.LATER)
    rtol = {"float32": 1e-5, "float16": 2e-3, "bfloat16": 2e-2}[run.dtype]
    wanted = EXPECTED[name]["updates"]
    assert np.any(wanted[0])
    for actual, leaf in zip(golden.as_lists(updates), wanted, strict=True):
        np.testing.assert_allclose(actual, leaf, rtol=rtol, atol=1e-7)
