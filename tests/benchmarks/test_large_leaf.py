"""What the rare way of the norm needs does not depend on how a model is cut into leaves."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradstable as gs
from benchmarks.counting import compile_step, count_common_path

MATRICES = {f"w{i:02}": (128, 128 + i) for i in range(14)}
TREES: dict[str, dict[str, tuple[int, ...]]] = {
    "one giant leaf": {"w": (1024, 1024)},
    "a flat one": {"w": (1 << 20,)},
    "a row": {"w": (1, 1 << 20)},
    "a column": {"w": (1 << 20, 1)},
    "of prime sides": {"w": (1021, 1031)},
    "of many dimensions": {"w": (3, 3, 128, 1024)},
    "40 % among others": {"embedding": (1409, 119), **MATRICES},
    "two halves": {"a": (700, 700), "b": (70, 7001)},
    "81 small ones": {f"w{i:02}": (100, 100) for i in range(81)},
    "small and large": {**MATRICES, **{f"b{i:02}": (257,) for i in range(9)}},
}


def types(name: str, dtype: Any) -> dict[str, jax.ShapeDtypeStruct]:
    return {leaf: jax.ShapeDtypeStruct(shape, dtype) for leaf, shape in TREES[name].items()}


def memory(tree: dict[str, jax.ShapeDtypeStruct]) -> int:
    return sum(leaf.size * leaf.dtype.itemsize for leaf in tree.values())


def temp(tx: optax.GradientTransformation, tree: dict[str, jax.ShapeDtypeStruct]) -> float:
    """Return the temporary memory of a whole step, as a share of the parameters."""
    plan = compile_step(tx, tree)[0].memory_analysis()
    return plan.temp_size_in_bytes / memory(tree)


@pytest.mark.parametrize("name", TREES)
def test_any_tree_needs_two_percent_of_its_memory(name: str) -> None:
    assert temp(gs.guard(optax.sgd(0.1)), types(name, jnp.float32)) <= 0.02


@pytest.mark.parametrize("name", ["one giant leaf", "40 % among others"])
@pytest.mark.parametrize(
    "dtype", [jnp.bfloat16, jnp.float16, jnp.complex64], ids=lambda d: d.__name__
)
def test_whatever_the_dtype(name: str, dtype: Any) -> None:
    tree = types(name, dtype)
    measured = jax.jit(gs.global_norm).lower(tree).compile().memory_analysis()
    assert measured is not None
    assert measured.temp_size_in_bytes <= 0.02 * memory(tree)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16], ids=lambda d: d.__name__)
@pytest.mark.parametrize("name", ["one giant leaf", "40 % among others"])
def test_of_a_narrow_gradient_no_scaled_copy_is_kept(name: str, dtype: Any) -> None:
    assert temp(gs.guard(optax.adamw(3e-4)), types(name, dtype)) <= 0.02


@pytest.mark.parametrize("name", ["one giant leaf", "40 % among others"])
def test_adamw_moves_eleven_words(name: str) -> None:
    tree = types(name, jnp.float32)
    tx = gs.guard(optax.adamw(3e-4))
    assert count_common_path(tx, tree).words <= 11.1
    assert temp(tx, tree) <= 0.02


def test_bfloat16_is_converted_by_each_reader_for_itself() -> None:
    # If the measure shared the conversion with the optimizer, XLA would write all of it in float32.
    tree = types("one giant leaf", jnp.bfloat16)
    bare = compile_step(optax.sgd(0.1), tree)[1].words
    assert count_common_path(gs.guard(optax.sgd(0.1)), tree).words <= bare + 0.55


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("rule", [gs.rules.block_norm(1.0, units="output"), gs.rules.unit_norm()])
def test_norms_of_units_need_no_copy_either(rule: gs.rules.Rule, dtype: Any) -> None:
    assert temp(gs.guard(optax.sgd(0.1), rule), types("one giant leaf", dtype)) <= 0.03


@pytest.mark.parametrize("value", [1e-45, 1e-30, 1e25])
@pytest.mark.parametrize("name", ["of prime sides", "of many dimensions"])
def test_rows_hold_every_entry_once(name: str, value: float) -> None:
    tree = {leaf: np.full(shape, value, np.float32) for leaf, shape in TREES[name].items()}
    tree["w"].reshape(-1)[-1] = np.float32(value * 100)
    wide = tree["w"].astype(np.float64)
    norm = jax.jit(gs.global_norm)(tree)
    np.testing.assert_allclose(np.float64(norm), np.sqrt(np.sum(wide**2)), rtol=1e-5, atol=1.5e-45)
