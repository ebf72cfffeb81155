"""Who exploded first, on made-up histories."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from gradstable.telemetry import Run, blame, read_run


@pytest.fixture
def calm(tmp_path: Path) -> Run:
    """A hundred healthy steps of three leaves."""
    rng = np.random.default_rng(0)
    norms = np.exp(0.1 * rng.normal(size=(100, 3)))
    lines = [{"event": "run", "format": 1, "leaves": ["a", "b", "c"]}]
    for step, row in enumerate(norms, start=1):
        total = float(np.linalg.norm(row))
        lines.append(
            {"event": "step", "step": step, "scale": 1.0, "grad_norm": total, "worst_leaf": 0}
            | ({"leaf_norms": row.tolist()} if step % 4 == 1 else {})
        )
    (tmp_path / "run.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return read_run(tmp_path / "run.jsonl")


def grown(run: Run, *, leaf: int, since: int, rate: float) -> Run:
    factor = rate ** np.maximum(run.leaf_steps - since, 0)
    norms = run.leaf_norms.copy()
    norms[:, leaf] *= factor
    return dataclasses.replace(run, leaf_norms=norms)


def test_healthy_run_has_nobody_to_blame(calm: Run) -> None:
    assert blame(calm) is None


def test_leaf_that_grows_first_is_found_with_its_beginning(calm: Run) -> None:
    run = grown(grown(calm, leaf=1, since=60, rate=1.3), leaf=2, since=75, rate=1.5)
    scale = np.where(run.step == 97, 0.0, run.scale)
    found = blame(dataclasses.replace(run, scale=scale))
    assert found is not None
    assert (found.step, found.path) == (97, "b")
    # Twice the usual norm is reached after three steps; one in four is recorded.
    assert 60 < found.began <= 69
    np.testing.assert_allclose(found.growth, 1.3**37, rtol=0.3)
    assert [path for path, _ in found.followed] == ["c"]
    assert "had been growing since" in found.sentence


def test_sudden_break_is_the_worst_leaf_of_its_step(calm: Run) -> None:
    broken = calm.step == 50
    found = blame(
        dataclasses.replace(
            calm,
            scale=np.where(broken, 0.0, 1.0),
            grad_norm=np.where(broken, np.nan, calm.grad_norm),
            worst_leaf=np.where(broken, 2, 0),
        )
    )
    assert found is not None
    assert (found.step, found.path, found.began) == (50, "c", 50)
    assert found.sentence == "c exploded first, at step 50, without prior growth."


def test_spike_that_nobody_rejected_is_found_by_its_norm(calm: Run) -> None:
    found = blame(
        dataclasses.replace(calm, grad_norm=np.where(calm.step == 30, 99.0, calm.grad_norm))
    )
    assert found is not None
    assert found.step == 30


def test_step_can_be_named(calm: Run) -> None:
    run = grown(calm, leaf=0, since=80, rate=1.5)
    found = blame(run, at=100)
    assert found is not None
    assert found.path == "a"
    with pytest.raises(ValueError, match="recorded steps are 1 to 100"):
        blame(run, at=101)


def test_empty_run(calm: Run) -> None:
    empty = {
        field.name: getattr(calm, field.name)[:0]
        for field in dataclasses.fields(calm)
        if isinstance(getattr(calm, field.name), np.ndarray)
    }
    assert blame(dataclasses.replace(calm, **empty)) is None
