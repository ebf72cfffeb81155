"""What taps cost, by XLA's count."""

import pytest

from benchmarks.taps import Size, compiled, count_without_measuring, steps


def test_a_step_that_does_not_measure_moves_and_computes_nothing_more() -> None:
    made, args = steps(Size(width=64, heads=2, blocks=1, letters=64, length=64, batch=4))
    bare, tapped = compiled(made["bare"], args)[1], compiled(made["tapped"], args)[1]
    off = count_without_measuring(made["tapped"], args)
    assert off.gigaflops == pytest.approx(bare.gigaflops, rel=2e-3)
    assert off.gigabytes == pytest.approx(bare.gigabytes, rel=2e-2)
    # The count sees taps where they are measured.
    assert tapped.gigabytes > 1.1 * bare.gigabytes
    # Nothing is kept for the measurement.
    assert tapped.temp_megabytes <= 1.05 * bare.temp_megabytes
