"""The script for a GPU runs from end to end without one, at sizes that say nothing about speed."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from benchmarks.speed.gpu import KERNELS, agrees, main, repeats_itself
from benchmarks.speed.kernel import Step, adamw, adamw_8bit


@pytest.mark.slow
def test_it_runs_and_writes_a_page(tmp_path: Path) -> None:
    page = tmp_path / "gpu.md"
    main(["--tiny", f"--markdown={page}"])
    text = page.read_text(encoding="utf-8")
    for name in (*KERNELS, "gs.guard(optax.adamw)", "gs.adamw_8bit"):
        assert f"| {name} |" in text
    assert text.count("the same step gives the same bits") == 3


def test_without_a_gpu_it_says_what_can_be_done(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main([])
    assert "--tiny" in capsys.readouterr().err


def test_a_step_that_does_not_repeat_itself_is_seen() -> None:
    calls = iter(range(100))

    def other_each_time(g: Any, _: Any) -> Any:
        factor = jax.pure_callback(
            lambda: np.float32(next(calls)), jax.ShapeDtypeStruct((), jnp.float32)
        )
        return {"w": g["w"] * factor}

    assert repeats_itself(optax.sgd(0.1))
    assert not repeats_itself(optax.stateless(other_each_time))


@pytest.mark.parametrize("step", [adamw, adamw_8bit])
def test_kernels_agree_with_xla(step: Step) -> None:
    assert agrees(step, interpret=True) < 1e-5
