"""The kernel of the benchmark computes what XLA computes, also where numbers are extreme."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export

from benchmarks.speed.kernel import BLOCK, Scalars, Step, adamw, adamw_8bit, by_kernel, by_xla

STEPS = {"adamw": adamw, "adamw_8bit": adamw_8bit}
EXTREME = [np.nan, np.inf, -np.inf, 1e-45, -1e-40, 3e38, -6e4, 0.0, -0.0]


def scalars(*, accept: float = 1.0) -> Scalars:
    count = jnp.int32(3)
    return Scalars.at(count, jnp.float32(accept), jnp.float32(0.5), rate=1e-2, decay=0.1)


def arrays(name: str, shape: tuple[int, ...], dtype: str) -> tuple[jax.Array, list[jax.Array]]:
    rng = np.random.default_rng(0)
    size = int(np.prod(shape))
    gradient = rng.normal(size=size).astype(np.float32)
    gradient[: len(EXTREME)] = EXTREME[:size]
    param = rng.normal(size=size).astype(np.float32)
    if name == "adamw":
        state = [rng.normal(size=size).astype(np.float32), rng.random(size).astype(np.float32)]
    else:
        state = [rng.integers(0, 2**16, size).astype(np.uint16)]
    as_given = [jnp.asarray(x).astype(dtype).reshape(shape) for x in (gradient, param)]
    return as_given[0], [as_given[1], *(jnp.asarray(x).reshape(shape) for x in state)]


@pytest.mark.parametrize("name", STEPS)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("shape", [(1,), (BLOCK,), (3, 691), (BLOCK + 1,), (7, 5, 31)], ids=str)
def test_kernel_equals_xla(name: str, dtype: str, shape: tuple[int, ...]) -> None:
    gradient, write = arrays(name, shape, dtype)
    found = by_kernel(STEPS[name], scalars(), gradient, write, interpret=True)
    expected = jax.jit(by_xla, static_argnums=0)(STEPS[name], scalars(), gradient, write)
    for one, other in zip(found, expected, strict=True):
        assert one.dtype == other.dtype
        if one.dtype == jnp.uint16:
            # A rounding of the quotient may look like a step of the code, or of the update.
            apart = np.abs(np.asarray(one, np.int32) - np.asarray(other, np.int32))
            assert apart.max() <= 1
            assert (apart > 0).mean() <= 1e-2
        else:
            # In units of the last place of one, since a difference can cancel.
            close = 4.0 * float(jnp.finfo(one.dtype).eps) + (3e-3 if len(found) == 2 else 0.0)
            wide = [np.asarray(x.astype(jnp.float32)) for x in (one, other)]
            np.testing.assert_allclose(*wide, rtol=close, atol=close)


@pytest.mark.parametrize("name", STEPS)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_rejected_step_changes_no_bit(name: str, dtype: str) -> None:
    gradient, write = arrays(name, (3, 691), dtype)
    found = by_kernel(STEPS[name], scalars(accept=0.0), gradient, write, interpret=True)
    for one, other in zip(found, write, strict=True):
        np.testing.assert_array_equal(one.view(jnp.uint8), other.view(jnp.uint8))


@pytest.mark.parametrize("name", STEPS)
def test_no_entry_becomes_unsound(name: str) -> None:
    gradient, write = arrays(name, (3, 691), "float32")
    for array in by_kernel(STEPS[name], scalars(), gradient, write, interpret=True):
        assert array.dtype == jnp.uint16 or bool(jnp.isfinite(array).all())


@pytest.mark.parametrize("name", STEPS)
def test_kernel_is_lowered_for_cuda_without_a_device(name: str) -> None:
    gradient, write = arrays(name, (3, 691), "float32")
    step: Step = STEPS[name]

    def run(gradient: jax.Array, write: list[jax.Array]) -> list[jax.Array]:
        return by_kernel(step, scalars(), gradient, write)

    target = "__gpu$xla.gpu.triton"
    check = export.DisabledSafetyCheck.custom_call(target)
    lowered = export.export(jax.jit(run), platforms=["cuda"], disabled_checks=[check])
    assert f"@{target}" in str(lowered(gradient, write).mlir_module())
