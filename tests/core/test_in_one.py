"""Scalars that are computed in one program come out as they went in."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, PartitionSpec

import gradstable as gs
from gradstable._src.core.in_one import in_one
from tests.bits import bits

SUBNORMAL = 1e-45
NUMBERS = {
    "floats": [0.0, -0.0, 1.5, -3e38, SUBNORMAL, -SUBNORMAL, np.nan, np.inf, -np.inf],
    "integers": [0, 1, -1, 2**31 - 1, -(2**31)],
    "flags": [True, False],
}


def numbers() -> dict[str, list[jax.Array]]:
    dtypes = {"floats": jnp.float32, "integers": jnp.int32, "flags": jnp.bool_}
    return {
        name: [jnp.asarray(np.asarray(value, dtypes[name])) for value in values]
        for name, values in NUMBERS.items()
    }


def num_programs(function: Any, *args: Any) -> int:
    return jax.jit(function).lower(*args).compile().as_text().count(" fusion(")


def test_every_bit_stays() -> None:
    given = numbers()
    assert bits(jax.jit(in_one)(given)) == bits(given)


def test_every_bit_stays_for_each_member_of_a_batch() -> None:
    """Also where only some of the numbers differ between members."""
    given = numbers()
    batched = jax.tree.map(lambda number: jnp.stack([number, number]), given["floats"])
    mixed = jax.jit(jax.vmap(lambda floats, others: in_one((floats, others)), in_axes=(0, None)))(
        batched, given["integers"]
    )
    assert bits(mixed[0]) == bits(batched)
    firsts = jax.tree.map(lambda number: number[0], mixed[1])
    assert bits(firsts) == bits(given["integers"])


def test_outside_jit_nothing_is_done() -> None:
    given = numbers()
    pairs = zip(jax.tree.leaves(in_one(given)), jax.tree.leaves(given), strict=True)
    assert all(one is other for one, other in pairs)


def test_arrays_and_other_dtypes_are_left_alone() -> None:
    given = {"array": jnp.arange(3.0), "half": jnp.float16(2.0), "one": jnp.float32(1.0)}
    assert bits(jax.jit(in_one)(given)) == bits(given)


def test_float32_and_float64_in_one_tree() -> None:
    with jax.enable_x64(True):
        dtypes = ("float32", "float64")
        given = [jnp.asarray(value, dtype) for dtype in dtypes for value in (1.5, -0.0)]
        assert bits(jax.jit(in_one)(given)) == bits(given)


def test_derivatives_pass_through_both_ways() -> None:
    def loss(x: jax.Array) -> jax.Array:
        squared, cubed = in_one((x**2, x**3))
        return squared + cubed

    x = jnp.float32(3.0)
    np.testing.assert_allclose(jax.jit(jax.grad(loss))(x), 33.0)
    np.testing.assert_allclose(jax.jit(jax.jacfwd(loss))(x), 33.0)


def test_numbers_that_differ_between_devices_are_left_alone() -> None:
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))

    def each(x: jax.Array) -> Any:
        own, common = x[0], jax.lax.psum(x[0], "data")
        own, common, other = in_one((own, common, 2.0 * common))
        return own[None], common + other

    run = jax.shard_map(
        each,
        mesh=mesh,
        in_specs=PartitionSpec("data"),
        out_specs=(PartitionSpec("data"), PartitionSpec()),
    )
    own, total = jax.jit(run)(jnp.arange(8.0))
    np.testing.assert_array_equal(own, np.arange(8.0))
    assert float(total) == 3 * 28.0


def test_any_number_of_results_is_one_program() -> None:
    def many(x: jax.Array) -> list[jax.Array]:
        return [jnp.where(x > limit, jnp.exp(x + limit), limit) for limit in range(1, 20)]

    x = jnp.float32(0.5)
    assert num_programs(many, x) > 10
    assert num_programs(lambda x: in_one(many(x)), x) == 1


@pytest.mark.parametrize("platform", ["cuda", "rocm", "tpu"])
def test_accelerators_get_the_numbers_as_they_are(platform: str) -> None:
    traced = jax.jit(in_one).trace(numbers())
    assert "reduce" not in traced.lower(lowering_platforms=(platform,)).as_text()
    assert "reduce" in traced.lower(lowering_platforms=("cpu",)).as_text()


@pytest.mark.parametrize(
    ("make", "most"),
    [
        (lambda: gs.guard(optax.adamw(3e-4)), 60),
        (lambda: gs.stable_adamw(3e-4), 95),
        (lambda: gs.rollback(gs.guard(optax.adamw(3e-4))), 230),
    ],
    ids=["guard", "stable_adamw", "rollback"],
)
def test_protection_of_six_leaves_takes_few_programs(make: Any, most: int) -> None:
    """Each takes some ten milliseconds to compile; bare AdamW has twenty."""
    params = {f"w{index}": jnp.ones((48, 48)) for index in range(6)}
    tx = optax.with_extra_args_support(make())

    def step(params: Any, state: Any, gradients: Any) -> Any:
        updates, state = tx.update(gradients, state, params, value=jnp.float32(1.0))
        return optax.apply_updates(params, updates), state

    assert num_programs(step, params, tx.init(params), params) <= most
