"""No gradient, whatever its bits, breaks a guarded run; a rejected step changes no bit."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradstable as gs
from tests.bits import bits
from tests.storm.optimizers import INNER
from tests.storm.weather import calm, params_of, storms

Carry = tuple[Any, gs.GuardState]
# A dtype of its own for every leaf shows in one run what takes three with one dtype each. Some of
# optax's own arithmetic refuses to compare bfloat16 with float16.
_UNMIXED = ("prodigy", "schedule_free")


def _in_dtypes(name: str) -> list[Any]:
    usual = "float32" if name in _UNMIXED else "mixed"
    rest = {"float32", "bfloat16", "float16"} - {usual}
    return [
        pytest.param(name, usual),
        *(pytest.param(name, dtype, marks=pytest.mark.slow) for dtype in sorted(rest)),
    ]


EVERY_DTYPE = pytest.mark.parametrize(
    ("name", "dtype"), [param for name in INNER for param in _in_dtypes(name)]
)


def make_step(name: str) -> tuple[optax.GradientTransformation, Any]:
    tx = gs.guard(INNER[name]())

    def step(carry: Carry, gradient: Any) -> Carry:
        params, state = carry
        updates, state = tx.update(gradient, state, params)
        return optax.apply_updates(params, updates), state

    return tx, step


def start(tx: optax.GradientTransformation, dtype: str) -> Carry:
    params = params_of(dtype)
    return params, tx.init(params)


def stack(trees: list[Any]) -> Any:
    return jax.tree.map(lambda *leaves: jnp.asarray(np.stack(leaves)), *trees)


def member(tree: Any, index: int) -> Any:
    return jax.tree.map(lambda leaf: leaf[index], tree)


def held_part(carry: Carry) -> Any:
    """What a rejected step must not touch."""
    params, state = carry
    return raw_keys((params, state.inner_state))


def raw_keys(tree: Any) -> Any:
    def raw(leaf: Any) -> Any:
        is_key = jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
        return jax.random.key_data(leaf) if is_key else leaf

    return jax.tree.map(raw, tree)


def non_finite_leaves(before: Any, after: Any) -> list[str]:
    """Name the leaves with a non-finite entry that was not there before."""
    flat, _ = jax.tree_util.tree_flatten_with_path(after)
    return [
        jax.tree_util.keystr(path)
        for (path, new), old in zip(flat, jax.tree.leaves(before), strict=True)
        if jnp.issubdtype(new.dtype, jnp.inexact)
        and np.any(
            ~np.isfinite(np.asarray(new, np.float32)) & np.isfinite(np.asarray(old, np.float32))
        )
    ]


def assert_survived(name: str, before: Carry, after: Carry) -> None:
    accepted = int(after[1].ledger.grad_factor != 0)
    if not accepted:
        assert bits(held_part(before)) == bits(held_part(after)), f"{name}: a rejected step moved"
    broken = non_finite_leaves(held_part(before), held_part(after))
    assert not broken, f"{name}: not finite any more: {broken}"


@EVERY_DTYPE
def test_every_storm_vmapped(name: str, dtype: str) -> None:
    """Every case from the same healthy state, as the members of one vmap."""
    tx, step = make_step(name)
    every = jax.jit(jax.vmap(step, in_axes=(None, 0)))
    names, gradients = zip(*storms(dtype), strict=True)
    before = start(tx, dtype)
    # Four calm steps by the same function: one program is compiled, not two.
    for seed in range(4):
        before = member(every(before, stack([calm(seed, dtype)] * len(names))), 0)
    after = every(before, stack(list(gradients)))
    after = jax.device_get(raw_keys(after))
    before = jax.device_get(raw_keys(before))
    for index, case in enumerate(names):
        assert_survived(case, before, member(after, index))
    rejected = np.asarray(after[1].ledger.grad_factor) == 0
    finite = [
        all(np.isfinite(np.asarray(x, np.float32)).all() for x in g.values()) for g in gradients
    ]
    assert rejected[~np.asarray(finite)].all()


@EVERY_DTYPE
def test_storm_from_the_first_step_on_in_scan(name: str, dtype: str) -> None:
    """All cases one after the other, calm between them, then training goes on."""
    tx, step = make_step(name)
    before = start(tx, dtype)
    sequence = []
    for index, (_, gradient) in enumerate(storms(dtype)):
        sequence += [gradient, calm(index, dtype)]
    sequence += [calm(seed, dtype) for seed in range(20)]

    def body(carry: Carry, gradient: Any) -> tuple[Carry, Any]:
        new = step(carry, gradient)
        return new, raw_keys(new)

    _, trail = jax.jit(lambda c, g: jax.lax.scan(body, c, g))(before, stack(sequence))
    trail = jax.device_get(trail)
    before = jax.device_get(raw_keys(before))
    for index in range(len(sequence)):
        after = member(trail, index)
        assert_survived(f"step {index}", before, after)
        before = after
    health = before[1].ledger.health
    assert health.count == len(sequence)
    assert health.consecutive_rejected == 0
    assert health.accepted + health.rejected == len(sequence)


EAGER_CASES = ("nan at kernel[6]", "+inf at scale[0]", "-max everywhere", "zero everywhere")


@pytest.mark.parametrize("name", INNER)
def test_storm_eager(name: str) -> None:
    tx, step = make_step(name)
    before = start(tx, "float32")
    for seed in range(3):
        before = step(before, jax.tree.map(jnp.asarray, calm(seed, "float32")))
    cases = dict(storms("float32"))
    for case in EAGER_CASES:
        after = step(before, jax.tree.map(jnp.asarray, cases[case]))
        assert_survived(case, before, after)


@pytest.mark.parametrize("name", ["momentum", "adamw_schedule", "lamb", "muon"])
def test_storm_jitted_step_by_step(name: str) -> None:
    """As a training loop runs it: one compiled step, donated state, a case at a time."""
    tx, step = make_step(name)
    jitted = jax.jit(step, donate_argnums=0)
    carry = start(tx, "float32")
    for seed in range(3):
        carry = jitted(carry, jax.tree.map(jnp.asarray, calm(seed, "float32")))
    for case, gradient in storms("float32"):
        before = jax.device_get(carry)
        carry = jitted(carry, jax.tree.map(jnp.asarray, gradient))
        assert_survived(case, before, carry)
