"""Early warnings on real training: Adam's own spikes, which come of a second moment that lags.

A network of two layers learns sin x + sin 4x from all points at once. Nothing is planted: with
b2 = 0.999 Adam makes its loss spike again and again, with b2 = 0.95 never (Bai et al. 2026,
arXiv:2506.04805).
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import gradstable as gs
from gradstable.telemetry import Alarm, read_rows

STEPS, WARMUP = 3000, 100
X = jnp.linspace(-jnp.pi, jnp.pi, 64)[:, None]
Y = jnp.sin(X) + jnp.sin(4 * X)


def loss_fn(params: Any) -> jax.Array:
    hidden = jnp.tanh(2 * X @ params["w1"] + params["b1"])
    return jnp.mean((hidden @ params["w2"] + params["b2"] - Y) ** 2)


def train(b2: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the loss of each step, and whether the second moment was warned of."""
    tx = gs.record(optax.adam(1e-2, b2=b2), capacity=STEPS)
    keys = jax.random.split(jax.random.key(seed), 3)
    params = {
        "w1": jax.random.normal(keys[0], (1, 64)),
        "b1": jax.random.normal(keys[1], (64,)),
        "w2": jax.random.normal(keys[2], (64, 1)) / 8,
        "b2": jnp.zeros(1),
    }

    @jax.jit
    def run(params: Any) -> Any:
        def body(carry: Any, _: None) -> tuple[Any, None]:
            params, state = carry
            loss, grads = jax.value_and_grad(loss_fn)(params)
            updates, state = tx.update(grads, state, params, value=loss)
            return (optax.apply_updates(params, updates), state), None

        return jax.lax.scan(body, (params, tx.init(params)), None, length=STEPS)[0][1]

    rows = read_rows(run(params)).steps
    warned = np.array([bool(row["alarms"] & Alarm.RMS) for row in rows])
    return np.array([row["loss"] for row in rows]), warned


def spikes(loss: np.ndarray) -> list[int]:
    """Return where the loss first exceeds three times its recent median."""
    high = [
        step for step in range(WARMUP, STEPS) if loss[step] > 3 * np.median(loss[step - 50 : step])
    ]
    return [step for i, step in enumerate(high) if i == 0 or step - high[i - 1] > 50]


def test_alarm_comes_before_the_loss_moves() -> None:
    found, ahead = 0, 0
    for seed in (0, 1):
        loss, warned = train(0.999, seed)
        for step in spikes(loss):
            found += 1
            ahead += warned[step - 10 : step].any()
    assert found >= 12
    assert ahead / found >= 0.8


def test_no_alarm_where_the_loss_does_not_spike() -> None:
    loss, warned = train(0.95, 0)
    assert not spikes(loss)
    assert not warned.any()
