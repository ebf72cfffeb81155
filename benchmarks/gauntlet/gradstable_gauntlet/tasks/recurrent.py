"""The adding problem, on which gradients through time explode and vanish."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import DTypeLike

from gradstable_gauntlet.task import Batch, Disturbance, Params, Task
from gradstable_gauntlet.tasks.parts import FLOOR, calm, cast, index, squared_error, weights

_ACTIVATIONS = {"relu": jax.nn.relu, "tanh": jnp.tanh}


def rnn(
    *,
    activation: str = "relu",
    radius: float = 1.5,
    identity: bool = False,
    gain: float = 1.0,
    length: int = 50,
    hidden: int = 16,
    batch_size: int = 12,
    steps: int = 350,
    dtype: DTypeLike = jnp.float32,
) -> Task:
    """Return the task of a network without gates that adds two marked numbers of a sequence.

    From Pascanu, Mikolov, Bengio, 2013, arXiv:1211.5063, except that the running sum is asked for
    at every step, so that hundreds of steps are enough instead of tens of thousands. Targets have
    noise of variance 0.05, the floor of the loss. The best constant answer has a loss of 0.26, and
    the best answer that depends only on time 0.175.

    Args:
      activation: ``"relu"`` or ``"tanh"``.
      radius: the modulus of the eigenvalues of the recurrent matrix, a random orthogonal one times
        this. A linear network multiplies gradients by it in every time step; ReLU lets half of them
        through, and tanh less the larger the state. For ReLU, columns are centered, so that the
        mean of the state does not feed on itself; otherwise some seeds start with a loss of 1e4.
      identity: whether the recurrent matrix is the identity times ``radius`` instead (Le, Jaitly,
        Hinton, 2015, arXiv:1504.00941).
      gain: the factor on the initial input weights.
      length: the number of time steps.
      hidden: the size of the state.
      batch_size: the number of sequences.
      steps: the number of updates in a run.
      dtype: the compute dtype.
    """
    act = _ACTIVATIONS[activation]

    def init(key: jax.Array) -> Params:
        square, given, output = weights(key, (hidden, hidden), (2, hidden), (hidden, 1))
        turn = jnp.eye(hidden) if identity else jnp.linalg.qr(square)[0]
        if activation == "relu" and not identity:
            turn -= jnp.mean(turn, 0)
        return {
            "recurrent": turn * radius,
            "input": given * gain,
            "bias": jnp.zeros(hidden),
            "output": output[:, 0],
            "offset": jnp.zeros(()),
        }

    def read(p: Params, x: jax.Array) -> jax.Array:
        state = jnp.zeros((x.shape[1], hidden), dtype)
        given = x @ p["input"] + p["bias"]

        def step(state: jax.Array, now: jax.Array) -> tuple[jax.Array, jax.Array]:
            state = act(state @ p["recurrent"] + now)
            return state, state

        _, states = lax.scan(step, state, given)
        return states @ p["output"] + p["offset"]

    about = f"{activation} network without gates adds two numbers, T={length}, radius {radius}"
    return _adding(init, read, length, batch_size, steps, about, dtype)


def lstm(
    *,
    length: int = 50,
    hidden: int = 10,
    batch_size: int = 8,
    steps: int = 300,
    dtype: DTypeLike = jnp.float32,
) -> Task:
    """Return the task of an LSTM on the adding problem, for which it was invented.

    Hochreiter, Schmidhuber, 1997. Its gradients vanish far later than those of networks without
    gates: it shows what protection costs where little goes wrong to begin with. The forget gates
    start with a bias of 1 (Gers et al. 2000).
    """

    def init(key: jax.Array) -> Params:
        shapes = (hidden, 4 * hidden), (2, 4 * hidden), (hidden, 1)
        recurrent, given, output = weights(key, *shapes)
        return {
            "recurrent": recurrent,
            "input": given,
            "bias": jnp.where(jnp.arange(4 * hidden) // hidden == 1, 1.0, 0.0),
            "output": output[:, 0],
            "offset": jnp.zeros(()),
        }

    def read(p: Params, x: jax.Array) -> jax.Array:
        given = x @ p["input"] + p["bias"]

        def step(carry: tuple[jax.Array, jax.Array], now: jax.Array) -> Any:
            state, memory = carry
            moved = state @ p["recurrent"] + now
            keep, forget, show = jnp.split(_gate(moved[:, : 3 * hidden]), 3, -1)
            memory = forget * memory + keep * jnp.tanh(moved[:, 3 * hidden :])
            state = show * jnp.tanh(memory)
            return (state, memory), state

        zeros = jnp.zeros((x.shape[1], hidden), dtype)
        _, states = lax.scan(step, (zeros, zeros), given)
        return states @ p["output"] + p["offset"]

    about = f"LSTM adds two numbers, T={length}"
    return _adding(init, read, length, batch_size, steps, about, dtype)


def _gate(x: jax.Array) -> jax.Array:
    """Return the sigmoid, computed by the hyperbolic tangent, which is fast on a CPU."""
    return 0.5 + 0.5 * jnp.tanh(0.5 * x)


def _adding(
    init: Callable[[jax.Array], Params],
    read: Callable[[Params, jax.Array], jax.Array],
    length: int,
    batch_size: int,
    steps: int,
    about: str,
    dtype: DTypeLike,
) -> Task:
    """Return the task of a network that reads ``[time, batch, 2]`` and answers ``[batch]``."""

    def sample(key: jax.Array, size: int, noise: float) -> Batch:
        draws = jax.random.uniform(key, (length + 2, size))
        values, half = draws[2:], length // 2
        first, second = index(draws[0], half), half + index(draws[1], half)
        time = jnp.arange(length)[:, None]
        marks = jnp.where((time == first) | (time == second), 1.0, 0.0)
        wrong = jax.random.normal(jax.random.fold_in(key, 1), (length, size)) * noise
        sums = jnp.cumsum(values * marks, 0) + wrong
        return jnp.stack([values, marks], -1), sums

    def loss(params: Params, batch: Batch, ill: Disturbance) -> jax.Array:
        x, y = batch
        p, x = cast((params, x * ill.inputs), dtype)
        return squared_error(read(p, x), y * ill.targets)

    def held_out(params: Params) -> jax.Array:
        return loss(params, sample(jax.random.key(99), 256, 0.0), calm()) + FLOOR

    return Task(init, lambda key: sample(key, batch_size, FLOOR**0.5), loss, held_out, steps, about)
