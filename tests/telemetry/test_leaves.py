"""A record has the leaves that the recorder saw, whatever the log was given."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import gradstable as gs
from gradstable._src.report.leaves import chosen, leaf_norms
from gradstable._src.telemetry.sink import Header
from gradstable.doctor import diagnose
from gradstable.telemetry import Log, Logging, Run, blame, read_run

PARAMS = {"a_base": jnp.ones(3), "lora": jnp.ones((2, 2)), "z_head": jnp.ones(5)}
ONLY_LORA = {"a_base": False, "lora": True, "z_head": False}
GUARD = gs.guard(optax.sgd(0.01))
STEPS, BAD_STEP = 12, 9


class Plain:
    """A sink of a user, who knows the leaves of the header alone."""

    def __init__(self) -> None:
        self.rows: list[Mapping[str, Any]] = []

    def open(self, header: Header) -> None: ...

    def steps(self, rows: Sequence[Mapping[str, Any]]) -> None:
        self.rows += rows

    def scalars(self, step: int, values: Mapping[str, float]) -> None: ...

    def note(self, step: int, text: str) -> None: ...

    def lost(self, first: int, last: int) -> None: ...

    def close(self, step: int) -> None: ...


def gradients(step: int, *, broken: str, without: str = "") -> dict[str, Any]:
    grads = {name: leaf * (jnp.nan if step == BAD_STEP and name == broken else 1.0)
             for name, leaf in PARAMS.items()}  # fmt: skip
    return {**grads, **({without: None} if without else {})}


def recorded(tx: Any, file: Path, *sinks: Any, known: Any = PARAMS, **kinds: str) -> Run:
    update, state = jax.jit(tx.update), tx.init(PARAMS)
    with Log(known, file, sinks=sinks, every=4) as log:
        for step in range(1, STEPS + 1):
            _, state = update(gradients(step, **kinds), state, PARAMS, value=jnp.float32(1.0))
            log(state)
    return read_run(file)


def test_behind_a_mask(tmp_path: Path) -> None:
    sink = Plain()
    tx = optax.masked(gs.record(GUARD), ONLY_LORA)
    run = recorded(tx, tmp_path / "run.jsonl", sink, broken="lora")
    assert run.leaves == ("['lora']",)
    assert run.sizes.tolist() == [4]
    assert run.dtypes == ("float32",)
    assert run.leaf_norms.tolist() == [[2.0], [2.0], pytest.approx([np.nan], nan_ok=True)]
    assert run.worst_leaf.tolist() == [0] * STEPS
    found = blame(run)
    assert found is not None
    assert (found.step, found.path) == (BAD_STEP, "['lora']")
    # The readers read it.
    assert diagnose(run)
    assert "['lora']" in leaf_norms(run).label
    assert chosen(run) == [0]
    # What knows other numbers is given none.
    assert {row["worst_leaf"] for row in sink.rows} == {-1}
    assert not any("leaf_norms" in row for row in sink.rows)


def test_around_a_mask_all_leaves_have_norms(tmp_path: Path) -> None:
    tx = gs.record(optax.masked(GUARD, ONLY_LORA))
    run = recorded(tx, tmp_path / "run.jsonl", broken="lora")
    assert run.leaves == tuple(f"['{name}']" for name in PARAMS)
    assert set(run.worst_leaf[run.rejected]) == {1}


@pytest.mark.parametrize("broken", ["lora", "z_head"])
def test_leaves_without_a_gradient_keep_their_columns(tmp_path: Path, broken: str) -> None:
    tx = gs.record(GUARD)
    run = recorded(tx, tmp_path / "run.jsonl", broken=broken, without="a_base")
    assert run.leaves == tuple(f"['{name}']" for name in PARAMS)
    np.testing.assert_allclose(run.leaf_norms[0], [0.0, 2.0, 5**0.5], rtol=1e-6)
    assert run.leaves[run.worst_leaf[BAD_STEP - 1]] == f"['{broken}']"


def test_adapters_of_nnx(tmp_path: Path) -> None:
    model = nnx.Sequential(nnx.Linear(2, 2, rngs=nnx.Rngs(0)), nnx.LoRA(2, 1, 2, rngs=nnx.Rngs(1)))
    optimizer = nnx.Optimizer(model, gs.record(GUARD), wrt=nnx.LoRAParam)
    grads = jax.tree.map(jnp.ones_like, nnx.state(model, nnx.LoRAParam))
    with Log(nnx.state(model), tmp_path / "run.jsonl") as log:
        optimizer.update(model, grads)
        log(optimizer)
    run = read_run(tmp_path / "run.jsonl")
    assert run.leaves == ("['layers'][1]['lora_a']", "['layers'][1]['lora_b']")
    assert run.leaf_norms.shape == (1, 2)
    assert run.sizes.tolist() == [2, 2]


def test_a_log_that_was_given_other_parameters_has_the_true_names(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    known = {"x": jnp.ones(7), "lora": PARAMS["lora"]}
    run = recorded(
        gs.record(GUARD), tmp_path / "run.jsonl", Logging(), known=known, broken="z_head"
    )
    assert run.leaves == tuple(f"['{name}']" for name in PARAMS)
    assert run.sizes.tolist() == [3, 4, 5]
    assert "in ['z_head']" in caplog.text


def test_a_model_with_functions_in_it(tmp_path: Path) -> None:
    """As Equinox has them: what is no array has no gradient, and is not recorded."""
    arrays = {"activation": None, "weight": jnp.ones(3)}
    model = {"activation": jax.nn.relu, "weight": jnp.ones(3)}
    tx = gs.record(optax.sgd(0.1))
    state = tx.init(model)
    _, state = tx.update(arrays, state, model)
    with Log(model, tmp_path / "run.jsonl") as log:
        log(state)
    assert read_run(tmp_path / "run.jsonl").leaves == ("['weight']",)


def test_an_older_record_with_fewer_norms_than_names_is_read(tmp_path: Path) -> None:
    header = {"event": "run", "format": 1, "leaves": ["a", "b", "c"], "sizes": [1, 2, 3]}
    row = {"event": "step", "grad_norm": 1.0, "scale": 0.0, "reason": 1, "worst_leaf": 1}
    lines = [header, *({**row, "step": n, "leaf_norms": [1.0, "nan"]} for n in range(1, 31))]
    file = tmp_path / "run.jsonl"
    file.write_text("\n".join(json.dumps(line) for line in lines))
    run = read_run(file)
    assert run.leaves == ("leaf 0", "leaf 1")
    assert run.leaf_norms.shape == (30, 2)
    assert diagnose(run)
    assert leaf_norms(run).label
    found = blame(run, at=30)
    assert found is not None
    assert found.path == "leaf 1"


def test_runs_of_vmap_are_written_one_by_one(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    tx = gs.record(GUARD)
    params = jax.tree.map(lambda p: jnp.stack([p] * 3), PARAMS)
    update = jax.jit(jax.vmap(lambda g, s, p, v: tx.update(g, s, p, value=v)))
    state = jax.vmap(tx.init)(params)
    with Log(PARAMS, tmp_path / "run.jsonl", sinks=[Logging()], every=4) as log:
        for step in range(1, STEPS + 1):
            broken = jnp.where((step == BAD_STEP) & (jnp.arange(3) == 1), jnp.nan, 1.0)
            grads = {**params, "lora": params["lora"] * broken[:, None, None]}
            _, state = update(grads, state, params, jnp.arange(3.0))
            log(state)
    rows = gs.telemetry.read_rows(state).steps
    assert [row["member"] for row in rows[::STEPS]] == [(0,), (1,), (2,)]
    assert read_run(tmp_path / "run.jsonl").step.size == 0
    for member in range(3):
        run = read_run(tmp_path / f"run.member{member}.jsonl")
        assert run.name == f"run, member {member}"
        assert run.step.tolist() == list(range(1, STEPS + 1))
        assert set(run.loss) == {member}
        assert run.step[run.rejected].tolist() == ([BAD_STEP] if member == 1 else [])
        assert run.ended
    assert (
        "member 1: rejected: the gradient had NaN or infinite entries, in ['lora']" in caplog.text
    )


def test_equal_replicas_are_written_once(tmp_path: Path) -> None:
    tx = gs.record(GUARD)
    state = tx.update(PARAMS, tx.init(PARAMS), PARAMS)[1]
    with Log(PARAMS, tmp_path / "run.jsonl") as log:
        log(jax.tree.map(lambda leaf: jnp.stack([leaf] * 4), state))
    assert [file.name for file in tmp_path.iterdir()] == ["run.jsonl"]
    assert read_run(tmp_path / "run.jsonl").step.tolist() == [1]
