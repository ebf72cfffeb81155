"""The small tools that the report is made of, where a mistake would tell a lie."""

import io
import json
from types import SimpleNamespace
from typing import Any, cast

import jax.numpy as jnp
import numpy as np
import pytest
from rich.console import Console

from gradstable._src.cli.demo.contestants import CONTESTANTS, make_methods
from gradstable._src.cli.demo.progress import Board
from gradstable._src.cli.demo.record import _plain
from gradstable._src.cli.demo.summary import _broken_from, spans


@pytest.mark.parametrize(
    ("steps", "text"),
    [
        ([], ""),
        ([20], "20"),
        ([3, 2, 1], "1-3"),
        ([20, 120, 220, 221, 223], "20, 120, 220-221, 223"),
    ],
)
def test_runs_of_steps_are_drawn_together(steps: list[int], text: str) -> None:
    assert spans(steps) == text


def outcome(loss: list[float], rejected: list[int], final: float) -> Any:
    mask = np.isin(np.arange(1, len(loss) + 1), rejected)
    series = {"loss": np.array(loss), "rejected": mask}
    return SimpleNamespace(series=series, final=SimpleNamespace(loss=final))


@pytest.mark.parametrize(
    ("loss", "rejected", "final", "step"),
    [
        ([1.0, np.nan, 1.0], [2], 1.0, None),  # survived
        ([1.0, np.nan, np.nan, np.nan], [], np.nan, 2),
        ([1.0, np.nan, np.nan, np.nan], [2, 3], np.nan, 4),  # held for two steps, then let go
        ([np.nan, np.nan], [], np.nan, 1),
    ],
)
def test_the_step_that_broke_a_run_is_found(
    loss: list[float], rejected: list[int], final: float, step: int | None
) -> None:
    assert _broken_from(outcome(loss, rejected, final)) == step


def test_json_holds_finite_numbers_only() -> None:
    values = {"a": np.array([0.1, np.nan, np.inf], np.float32), "b": [-np.inf, 1, "x", True]}
    text = json.dumps(_plain(values), allow_nan=False)
    assert text == '{"a": [0.1, null, null], "b": [null, 1, "x", true]}'


@pytest.mark.parametrize(
    ("norm", "last_finite", "in_a_row", "rejected", "scale"),
    [
        (0.5, True, 0, False, 1.0),
        (4.0, True, 0, False, 0.25),
        (np.nan, False, 1, True, 0.0),
        (np.nan, False, 5, True, 0.0),
        (np.nan, False, 6, False, 1.0),  # its budget is spent: the NaN goes through
    ],
)
def test_decisions_of_apply_if_finite_are_read_off_its_state(
    norm: float, last_finite: bool, in_a_row: int, rejected: bool, scale: float
) -> None:
    def variable(value: Any) -> Any:
        return SimpleNamespace(get_value=lambda: jnp.asarray(value))

    state = SimpleNamespace(last_finite=variable(last_finite), notfinite_count=variable(in_a_row))
    decision = make_methods(10)["clip_finite"].read(state, jnp.asarray(norm, jnp.float32))
    assert (bool(decision.rejected), float(decision.scale)) == (rejected, scale)


def watched(contestant: Any) -> Any:
    return SimpleNamespace(
        contestant=contestant,
        steps=10,
        last=SimpleNamespace(loss=0.25, grad_norm=np.nan),
        rejected=3,
        method=SimpleNamespace(judges=contestant.method != "adamw"),
    )


def test_a_terminal_gets_a_bar_for_each_contestant() -> None:
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=120)
    with Board(console, steps=10) as board:
        for contestant in CONTESTANTS:
            board(cast(Any, watched(contestant)))
    shown = screen.getvalue()
    assert all(contestant.name in shown for contestant in CONTESTANTS)
    assert "10/10" in shown
    assert "0.25" in shown
    assert "nan" in shown


def test_a_file_gets_a_single_line() -> None:
    file = io.StringIO()
    with Board(Console(file=file, width=120), steps=10) as board:
        for _ in range(50):
            board(watched(CONTESTANTS[0]))
    assert file.getvalue().count("\n") == 1
