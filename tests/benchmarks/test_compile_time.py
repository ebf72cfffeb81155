"""The command that measures compile time measures something."""

import pytest

from benchmarks.compile_time import STEPS, cost


@pytest.mark.parametrize("name", STEPS)
def test_every_step_is_traced_and_compiled(name: str) -> None:
    found = cost(STEPS[name], 2)
    assert found.trace > 0.0
    assert found.compile > 0.0
    assert found.programs >= cost(STEPS["optax.adamw"], 2).programs
