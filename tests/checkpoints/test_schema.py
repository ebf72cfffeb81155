"""A checkpoint says what it holds, and why it does not fit."""

import json
import re
from typing import Any

import jax
import jax.numpy as jnp
import optax
import pytest

import gradstable as gs
from gradstable._src.checkpoints import schema as module

PARAMS = {"w": jnp.ones((3, 2), jnp.bfloat16)}
ADAMW = optax.adamw(1e-3)


def _with_another_link() -> Any:
    state: Any = ADAMW.init(PARAMS)
    return (*state, jnp.ones(1))


def test_schema_goes_through_json_and_fits_its_own_state() -> None:
    state = gs.record(gs.guard(ADAMW)).init(PARAMS)
    schema = json.loads(json.dumps(gs.checkpoints.state_schema(state)))
    gs.checkpoints.check_schema(state, schema)
    gs.checkpoints.check_schema(jax.eval_shape(gs.record(gs.guard(ADAMW)).init, PARAMS), schema)


def test_schema_tells_all_that_a_file_depends_on() -> None:
    state = (ADAMW.init(PARAMS), {"key": jax.random.key(0), "none": None, "scalar": 1.0})
    assert gs.checkpoints.state_schema(state)["leaves"] == {
        "[0][0].count": "int32[]",
        "[0][0].mu['w']": "bfloat16[3,2]",
        "[0][0].nu['w']": "bfloat16[3,2]",
        "[0][1]": "EmptyState",
        "[0][2]": "EmptyState",
        "[1]['key']": "key<fry>[]",
        "[1]['none']": "NoneType",
        "[1]['scalar']": "float32[]",
    }


@pytest.mark.parametrize(
    ("state", "told"),
    [
        (ADAMW.init({"w": jnp.ones((3, 2))}), "it has bfloat16[3,2] at [0].mu['w'], and float32"),
        (ADAMW.init({"w": jnp.ones(3, jnp.bfloat16)}), "and bfloat16[3] is expected there"),
        (optax.adam(1e-3).init(PARAMS), "it has EmptyState at [2], and nothing is expected there"),
        (_with_another_link(), "it has nothing at [3], and float32[1] is expected"),
        (gs.guard(ADAMW).init(PARAMS), "pass it to gradstable.checkpoints.migrate_state"),
    ],
)
def test_first_leaf_that_differs_is_named_with_the_remedy(state: Any, told: str) -> None:
    schema = gs.checkpoints.state_schema(ADAMW.init(PARAMS))
    with pytest.raises(ValueError, match=f"holds another state.*{re.escape(told)}"):
        gs.checkpoints.check_schema(state, schema)


@pytest.mark.parametrize(
    ("version", "told"),
    [
        (0, r"Load it with gradstable 0\.0\.9 .* Changed"),
        (1, r"Load it without a target, .* gradstable\.checkpoints\.upgrade_state"),
        (9, r"Update to gradstable 0\.0\.9"),
    ],
)
def test_another_version_is_named(version: int, told: str) -> None:
    schema = gs.checkpoints.state_schema(ADAMW.init(PARAMS)) | {
        "schema": version,
        "gradstable": "0.0.9",
    }
    gs.checkpoints.check_schema(ADAMW.init(PARAMS), schema)  # this optimizer did not change
    here = re.escape(f"and this is state schema {module.SCHEMA} (gradstable {gs.__version__})")
    expected = rf"with state schema {version} \(gradstable 0\.0\.9\), {here}.*count.*{told}"
    with pytest.raises(ValueError, match=expected):
        gs.checkpoints.check_schema(gs.guard(ADAMW).init(PARAMS), schema)


@pytest.mark.parametrize("schema", [None, {}, {"schema": 1}, "1"])
def test_what_is_no_schema_is_refused(schema: Any) -> None:
    with pytest.raises(
        TypeError, match=r"must be what gradstable\.checkpoints\.state_schema returned"
    ):
        gs.checkpoints.check_schema(ADAMW.init(PARAMS), schema)
