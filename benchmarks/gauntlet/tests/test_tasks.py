import subprocess
import sys
from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from gradstable_gauntlet.entries import FAIR_TASKS
from gradstable_gauntlet.task import Disturbance, Task
from gradstable_gauntlet.tasks import TASKS

NAMES = list(TASKS)
# One of each kind in every run, all in a slow one: each is a program to compile.
KINDS = {"digits_cnn", "relu_rnn", "lm_markov", "gan", "heavy_tails", "sines"}
ONE_OF_A_KIND = [
    name if name in KINDS else pytest.param(name, marks=pytest.mark.slow) for name in NAMES
]
# Units that saturate take what is too large for as large as can be, and pass nothing back; a hinge
# is zero where distances are large.
HEADS = {"two_heads", "two_heads_rare", "two_heads_even", "three_heads"}
SATURATE = {"tanh_rnn", "lstm", "sines", "sparse_reward", "triplet", "policy", *HEADS}
QUICK = ["digits_cnn", "deep_mlp", "lm_markov", "lm_markov_qk", "heavy_tails", "sines"]
HALVED = (*(pytest.param(name, marks=pytest.mark.slow) for name in ("digits_cnn", "lstm")), "sines")
STEPS = 40
# The programs are compiled for tests of a second: less is made of them than could be.
FAST = {"xla_backend_optimization_level": 0, "xla_cpu_use_fusion_emitters": False}


@cache
def made(name: str) -> Task:
    return TASKS[name]()


def weather(inputs: float = 1.0, targets: float = 1.0) -> Disturbance:
    return Disturbance(jnp.float32(inputs), jnp.float32(targets))


def keys(count: int = 2) -> jax.Array:
    return jax.random.split(jax.random.key(3), count)


@cache
def short_run(name: str, *, half: bool = False) -> Any:
    """Return one program for all tests of a task, since compiling it is what takes the time.

    From keys, 40 disturbances and a rate to the held-out losses before and after, and the losses
    and the norms of the gradients. With a rate of 0 parameters and batch stay as they are.
    """
    task = TASKS[name](dtype=jnp.float16) if half else made(name)

    def run(key: jax.Array, ills: Disturbance, rate: jax.Array) -> tuple[jax.Array, ...]:
        tx = optax.adam(1e-2)

        def step(carry: Any, now: Any) -> tuple[Any, tuple[jax.Array, jax.Array]]:
            number, ill = now
            number = jnp.where(rate > 0, number, 0)
            batch = task.batch(jax.random.fold_in(key, number))
            loss, gradients = jax.value_and_grad(task.loss)(carry[0], batch, ill)
            updates, state = tx.update(gradients, carry[1])
            moved = optax.apply_updates(carry[0], updates), state
            kept = jax.tree.map(lambda a, b: jnp.where(rate > 0, a, b), moved, carry)
            return kept, (loss, optax.tree.norm(gradients))

        params = task.init(key)
        carry = params, tx.init(params)
        after, told = jax.lax.scan(step, carry, (jnp.arange(STEPS), ills))
        ends = jax.vmap(task.held_out)(jax.tree.map(lambda *p: jnp.stack(p), params, after[0]))
        return ends[0], ends[1], *told

    return jax.jit(jax.vmap(run, (0, None, None)), compiler_options=FAST)


def measured(name: str, *ills: tuple[float, float], half: bool = False) -> tuple[np.ndarray, ...]:
    """Return losses and norms of gradients ``[keys, disturbances]`` of one batch."""
    every = np.asarray([*ills, *[(1, 1)] * (STEPS - len(ills))], np.float32)
    out = short_run(name, half=half)(keys(3), Disturbance(every[:, 0], every[:, 1]), 0.0)
    assert out[2].dtype == jnp.float32
    return np.asarray(out[2]), np.asarray(out[3])


@pytest.mark.parametrize("name", ONE_OF_A_KIND)
def test_what_is_ill_reaches_the_gradients(name: str) -> None:
    ills = [(1, 1), (np.nan, 1), (np.inf, 1), (1, np.nan), (1, np.inf), (1, 1e3), (1e3, 1)]
    loss, norm = measured(name, *ills)
    assert np.all(np.isfinite(loss[:, 0]))
    assert np.all(norm[:, 0] > 0)
    assert not np.any(np.isfinite(norm[:, 1:5]))
    assert np.all(norm[:, 5] > 10 * norm[:, 0])
    if name not in SATURATE:
        assert np.all(norm[:, 6] > 1.5 * norm[:, 0])


@pytest.mark.parametrize("name", HALVED)
def test_half_precision_is_close_and_overflows_where_targets_are_huge(name: str) -> None:
    loss, norm = measured(name, (1, 1), (1, 1e7), half=True)
    whole_loss, whole_norm = measured(name, (1, 1), (1, 1e7))
    np.testing.assert_allclose(loss[:, 0], whole_loss[:, 0], rtol=0.02)
    np.testing.assert_allclose(norm[:, 0], whole_norm[:, 0], rtol=0.1)
    assert np.all(np.isfinite(whole_norm[:, 1]))
    assert not np.any(np.isfinite(norm[:, 1]))


@pytest.mark.parametrize("name", ONE_OF_A_KIND)
def test_runs_side_by_side_are_finite_and_repeat(name: str) -> None:
    calm = Disturbance(*np.ones((2, STEPS), np.float32))
    once, again = (short_run(name)(keys(3), calm, 1.0) for _ in range(2))
    jax.tree.map(np.testing.assert_array_equal, once, again)
    start, end, losses, _ = (np.asarray(each) for each in once)
    assert np.all(np.isfinite(losses))
    assert np.all(end > 0)
    assert len(set(losses[:, -1].tolist())) == 3
    if name in QUICK:
        assert np.all(end < 0.95 * start)


@pytest.mark.parametrize("name", NAMES)
def test_parameters_are_in_float32_and_the_task_says_what_it_is(name: str) -> None:
    task = TASKS[name](dtype=jnp.bfloat16)
    params = jax.eval_shape(task.init, keys()[0])
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype(jnp.float32)}
    assert jax.eval_shape(task.held_out, params).dtype == jnp.float32
    assert 250 <= task.steps <= (1500 if name in FAIR_TASKS else 500)
    assert task.about
    assert "\n" not in task.about


def test_a_broken_shard_has_other_tokens_and_another_weight() -> None:
    task = made("lm_topics")
    loss = jax.jit(task.loss, compiler_options=FAST)
    params, (tokens, others) = jax.jit(task.init)(keys()[0]), task.batch(keys()[1])
    twice = loss(params, (tokens, others), weather(inputs=2.0))
    np.testing.assert_allclose(twice, 2 * loss(params, (others, tokens), weather()), rtol=1e-6)
    assert not np.array_equal(tokens, others)


def test_a_stream_depends_on_its_last_two_tokens_and_on_no_more() -> None:
    tokens, _ = jax.vmap(made("lm_markov").batch)(jax.random.split(jax.random.key(0), 4000))
    tokens = np.asarray(tokens).reshape(-1, tokens.shape[-1])

    def entropy(*back: int) -> float:
        """Return the entropy of a token, given those so far back, over the one of chance."""
        code = np.zeros_like(tokens[:, 3:])
        for far in back:
            code = code * 16 + tokens[:, 3 - far : tokens.shape[1] - far]
        joint = np.zeros((16 ** len(back), 16))
        np.add.at(joint, (code.ravel(), tokens[:, 3:].ravel()), 1.0)
        joint = (joint + 1e-9) / joint.sum()
        given = joint.sum(1, keepdims=True)
        return -float(np.sum(joint * np.log(joint / given)))

    assert entropy(1) < entropy(3) - 0.1
    assert entropy(1, 2) < entropy(1) - 0.2
    assert entropy(1, 2, 3) > entropy(1, 2) - 0.1


def test_the_choices_of_a_decoder_are_arguments() -> None:
    given: dict[str, Any] = {"layers": 2, "width": 32}
    small, large = made("lm_markov"), TASKS["lm_markov"](qk_norm=True, z_weight=1e-2, **given)
    params = jax.jit(large.init)(keys()[0])
    assert len(params["blocks"]) == 2
    assert params["head"].shape[0] == 32
    assert "q_norm" in params["blocks"][0]
    assert "q_norm" not in jax.eval_shape(small.init, keys()[0])["blocks"][0]
    without = TASKS["lm_markov"](qk_norm=True, **given)

    @partial(jax.jit, compiler_options=FAST)
    def losses(params: Any, batch: Any) -> tuple[jax.Array, ...]:
        both = large, without
        trained = (task.loss(params, batch, weather()) for task in both)
        return *trained, *(task.held_out(params) for task in both)

    more, less, *held = losses(params, jax.jit(large.batch)(keys()[1]))
    assert more > less
    np.testing.assert_allclose(*held, rtol=1e-6)


def test_nothing_is_loaded_before_it_is_needed() -> None:
    told = (
        "import sys, gradstable; assert 'gradstable_gauntlet' not in sys.modules;"
        "import gradstable_gauntlet.tasks; assert 'sklearn' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", told], check=True)
