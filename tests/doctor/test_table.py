"""Every diagnosis against every recorded run: found where it was planted, and nowhere else."""

import dataclasses
import functools
import inspect
import re
from operator import attrgetter
from pathlib import Path

import numpy as np
import optax
import pytest

import gradstable as gs
from benchmarks.illnesses import CASES, write
from gradstable.doctor import RULES, Diagnosis, diagnose
from gradstable.telemetry import Run
from tests.doctor.expected import EXPECTED, RUNS
from tests.doctor.parts import cut

NAMES = [*RULES, "too_short", "healthy"]
HEALTHY = [name for name, found in EXPECTED.items() if found == ("healthy",)]
PAGE = Path(__file__).parents[2] / "docs" / "doctor.md"


@functools.cache
def load(name: str) -> Run:
    return gs.telemetry.read_run(RUNS / f"{name}.jsonl")


@functools.cache
def diagnosed(name: str) -> tuple[Diagnosis, ...]:
    return diagnose(load(name))


def test_the_table_is_of_all_runs_and_all_diagnoses() -> None:
    assert EXPECTED.keys() == CASES.keys() == {file.stem for file in RUNS.glob("*.jsonl")}
    assert {name for names in EXPECTED.values() for name in names} == set(NAMES)


def test_runs_stay_small() -> None:
    sizes = [file.stat().st_size for file in RUNS.glob("*.jsonl")]
    assert max(sizes) < 60_000
    # 200 bytes a step as they are written, of which git keeps a tenth.
    assert sum(sizes) < 22_000 * len(sizes)


@pytest.mark.parametrize("name", RULES)
def test_a_rule_is_stated_where_it_is_applied(name: str) -> None:
    assert re.search(r"^Rule[:,]", inspect.getdoc(RULES[name]) or "", re.MULTILINE)


def test_the_page_has_all_diagnoses_in_their_order() -> None:
    rows = re.findall(r"^\| `(\w+)` \|", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert rows == NAMES


@pytest.mark.parametrize("run", EXPECTED)
def test_advice_names_what_there_is(run: str) -> None:
    for one in diagnosed(run):
        for package, path in re.findall(r"\b(gs|optax)\.([\w.]*\w)", one.advice):
            assert callable(attrgetter(path)({"gs": gs, "optax": optax}[package]))


@pytest.mark.parametrize("run", EXPECTED)
def test_diagnosed_is_what_was_planted_and_the_cause_comes_first(run: str) -> None:
    assert tuple(one.name for one in diagnosed(run)) == EXPECTED[run]


@pytest.mark.parametrize("run", EXPECTED)
def test_evidence_is_a_number_on_the_right_side_of_its_threshold(run: str) -> None:
    for one in diagnosed(run):
        assert one.evidence
        assert all(piece.holds for piece in one.evidence), one
        assert one.sentence.endswith((".", ")"))
        assert one.advice


@pytest.mark.parametrize("run", EXPECTED)
def test_any_part_of_a_run_can_be_judged(run: str) -> None:
    whole = load(run)
    number = len(whole.step)
    for rows in (slice(0), slice(1), slice(2), slice(7), slice(-1, None), slice(5, None, 3)):
        found = diagnose(cut(whole, rows))
        assert found
        assert all(piece.holds for one in found for piece in one.evidence)
    assert len(whole.step) == number


@pytest.mark.parametrize("run", HEALTHY)
def test_a_healthy_run_is_never_called_ill(run: str) -> None:
    whole = load(run)
    parts = [slice(end) for end in range(1, len(whole.step), 6)]
    parts += [slice(begin, None) for begin in range(1, len(whole.step), 12)]
    for rows in parts:
        (found,) = [one.name for one in diagnose(cut(whole, rows))]
        assert found == ("healthy" if len(whole.step[rows]) >= 20 else "too_short"), rows


@pytest.mark.parametrize("length", [0, 1, 2, 40])
@pytest.mark.parametrize("rule", RULES)
def test_a_record_of_nothing_but_nan_is_judged_without_a_crash(rule: str, length: int) -> None:
    whole = cut(load("letters"), slice(length))
    columns = ("loss", "grad_norm", "threshold", "scale", "update_ratio", "rms", "lr_factor")
    unknown = np.full(length, np.nan)
    nothing = dataclasses.replace(
        whole,
        **dict.fromkeys(columns, unknown),
        leaf_norms=np.full(whole.leaf_norms.shape, np.nan),
    )
    found = RULES[rule](nothing)
    assert (found is not None) == (rule in ("broken_loss", "diverged") and length > 0)
    # The same columns, not recorded, are no illness at all.
    assert RULES[rule](dataclasses.replace(nothing, known=frozenset())) is None


@pytest.mark.parametrize("run", ["bad_batches", "stale_moment", "too_fast_sgd", "locked"])
def test_what_was_not_recorded_is_no_illness(run: str) -> None:
    whole = load(run)
    unknown = np.full(len(whole.step), np.nan)
    bare = dataclasses.replace(
        whole,
        loss=unknown, update_ratio=unknown, rms=unknown, known=frozenset({"grad_norm", "scale"}),
        leaf_steps=whole.leaf_steps[:0], leaf_norms=whole.leaf_norms[:0],
    )  # fmt: skip
    found = {one.name for one in diagnose(bare)}
    assert found <= set(EXPECTED[run]) | {"healthy"}


@pytest.mark.parametrize("seed", range(3))
def test_noise_is_judged_without_a_crash(seed: int) -> None:
    rng = np.random.default_rng(seed)
    whole = load("bad_batches")

    def noise(shape: tuple[int, ...]) -> np.ndarray:
        values = np.exp(rng.normal(0, 20, shape))
        special = rng.choice([0.0, np.nan, np.inf, 1.0], size=shape)
        return np.where(rng.random(shape) < 0.2, special, values)

    fields = ("loss", "grad_norm", "threshold", "update_ratio", "rms")
    wild = dataclasses.replace(
        whole,
        **{name: noise(whole.step.shape) for name in fields},
        scale=rng.choice([0.0, 0.5, 1.0], size=whole.step.shape),
        leaf_norms=noise(whole.leaf_norms.shape),
    )
    assert all(piece.holds for one in diagnose(wild) for piece in one.evidence)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("run", ["hardly_learnable", "root_at_zero", "creeping_sgd"])
def test_a_run_made_anew_is_diagnosed_alike(run: str, seed: int, tmp_path: Path) -> None:
    made = gs.telemetry.read_run(write(run, tmp_path, seed=seed))
    assert tuple(one.name for one in diagnose(made)) == EXPECTED[run]
