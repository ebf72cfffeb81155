"""Healthy tasks: bare Adam learns them, and they are what they say."""

from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gradstable_gauntlet.contestants import CONTESTANTS
from gradstable_gauntlet.entries import FAIR_TASKS
from gradstable_gauntlet.run import Trace, member, train
from gradstable_gauntlet.storms import calm
from gradstable_gauntlet.task import Disturbance, Task
from gradstable_gauntlet.tasks import TASKS
from gradstable_gauntlet.tasks.parts import FLOOR

# The programs are compiled for tests of a second: less is made of them than could be.
FAST = {"xla_backend_optimization_level": 0, "xla_cpu_use_fusion_emitters": False}
KINDS = {"two_heads", "sparse_reward", "triplet", "wgan", "policy"}
# One of each kind in every run, all in a slow one.
EACH = [
    name if name in KINDS else pytest.param(name, marks=pytest.mark.slow) for name in FAIR_TASKS
]
# What is left of the loss at the start, at most; of heads and rewards, the error is.
LEARNED = {"wgan": 0.6, "policy": 0.06, "triplet": 0.25}
ERRORS = {"two_heads": 0.005, "two_heads_rare": 0.007, "two_heads_even": 0.015,
          "three_heads": 0.02, "sparse_reward": 0.005}  # fmt: skip
CALM = Disturbance(jnp.ones(()), jnp.ones(()))


@cache
def made(name: str) -> Task:
    return TASKS[name]()


@cache
def learned(name: str) -> Trace:
    """Return what Adam makes of a task at a rate of 0.01, with three seeds."""
    task = made(name)
    members = [member(seed=seed, rate=1e-2, weather=calm(task.steps)) for seed in range(3)]
    whole = jax.jit(
        jax.vmap(lambda one: train(task, CONTESTANTS["adam"], one)), compiler_options=FAST
    )
    stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *members)
    return jax.device_get(whole(stacked))


@pytest.mark.parametrize("name", EACH)
def test_adam_learns_it_without_protection(name: str) -> None:
    trace = learned(name)
    assert np.all(trace.finite)
    assert np.all(np.isfinite(trace.losses))
    assert np.all(trace.final >= FLOOR)
    if name in ERRORS:
        assert np.median(trace.final) - FLOOR < ERRORS[name]
        assert np.all(trace.start > 0.3)
    else:
        assert np.median(trace.final / trace.start) < LEARNED[name]


@pytest.mark.parametrize("name", EACH)
def test_gradients_are_finite_at_the_start(name: str) -> None:
    task = made(name)

    def gradients(key: jax.Array) -> Any:
        return jax.grad(task.loss)(task.init(key), task.batch(key), CALM)

    found = jax.jit(jax.vmap(gradients), compiler_options=FAST)(
        jax.random.split(jax.random.key(0), 16)
    )
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(found))
    assert any((np.abs(leaf) > 0).any() for leaf in jax.tree.leaves(found))


def test_a_batch_teaches_one_head() -> None:
    task = made("two_heads")

    def gradients(key: jax.Array) -> Any:
        batch = task.batch(key)
        gradient = jax.grad(task.loss)(task.init(key), batch, CALM)
        return batch[-1], [jnp.max(jnp.abs(head["kernel"])) for head in gradient["heads"]]

    keys = jax.random.split(jax.random.key(1), 2000)
    which, sizes = jax.jit(jax.vmap(gradients), compiler_options=FAST)(keys)
    assert np.mean(which) == pytest.approx(0.2, abs=0.03)
    for head, size in enumerate(sizes):
        np.testing.assert_array_equal(np.asarray(size) > 0, np.asarray(which) == head)


def test_most_batches_of_a_sparse_reward_say_next_to_nothing() -> None:
    task = made("sparse_reward")
    params = task.init(jax.random.key(0))

    def size(key: jax.Array) -> tuple[jax.Array, jax.Array]:
        batch = task.batch(key)
        gradient = jax.grad(task.loss)(params, batch, CALM)
        norms = jnp.stack([jnp.sum(leaf**2) for leaf in jax.tree.leaves(gradient)])
        return batch[-1], jnp.sqrt(jnp.sum(norms))

    tells, sizes = jax.jit(jax.vmap(size), compiler_options=FAST)(
        jax.random.split(jax.random.key(1), 1000)
    )
    assert np.mean(tells) == pytest.approx(0.15, abs=0.03)
    assert np.min(sizes[tells]) > 1e3 * np.max(sizes[~tells])


def test_a_triplet_loss_is_zero_for_most_batches_in_the_end() -> None:
    late = np.asarray(learned("triplet").losses)[:, -100:]
    assert 0.6 < np.mean(late == 0) < 1.0


def test_losses_of_a_critic_change_their_sign() -> None:
    losses = np.asarray(learned("wgan").losses)
    assert losses.min() < 0 < losses.max()


def test_a_policy_is_not_differentiated_through_its_moves() -> None:
    """Pitfall: through the environment, the gradient would grow with the rewards."""
    task = made("policy")

    @partial(jax.jit, compiler_options=FAST)
    def gradient(targets: jax.Array) -> Any:
        params, batch = task.init(jax.random.key(0)), task.batch(jax.random.key(1))
        return jax.grad(task.loss)(params, batch, Disturbance(jnp.ones(()), targets))

    # So large that the values of the critic do not count next to them.
    one, other = (gradient(jnp.float32(size)) for size in (1e5, 1e6))
    for few, many in zip(*map(jax.tree.leaves, (one["actor"], other["actor"])), strict=True):
        np.testing.assert_allclose(few, many, rtol=1e-2, atol=1e-4)
    kernels = [each["critic"][1]["kernel"] for each in (one, other)]
    np.testing.assert_allclose(10 * kernels[0], kernels[1], rtol=1e-2)
