"""Plain JAX, no Flax: one network, one broken batch, with and without the guard.

Run it with ``python -m examples.plain_jax``; it takes a few seconds.
"""

from typing import Any

import jax
import jax.numpy as jnp
import optax

import gradstable as gs

BAD_STEP, STEPS = 100, 300


def init(key: jax.Array, sizes: tuple[int, ...] = (2, 32, 32, 1)) -> list[dict[str, jax.Array]]:
    pairs = zip(jax.random.split(key, len(sizes) - 1), sizes[:-1], sizes[1:], strict=True)
    return [{"b": jnp.zeros(n), "w": jax.random.normal(k, (m, n)) / m**0.5} for k, m, n in pairs]


def loss_fn(params: list[dict[str, jax.Array]], x: jax.Array) -> jax.Array:
    inside = jnp.sum(x**2, axis=1) < 1.4  # about half of the points
    for layer in params[:-1]:
        x = jnp.tanh(x @ layer["w"] + layer["b"])
    logits = (x @ params[-1]["w"] + params[-1]["b"])[:, 0]
    return jnp.mean(optax.sigmoid_binary_cross_entropy(logits, inside))


def train(tx: optax.GradientTransformation) -> tuple[list[float], Any, Any]:
    """Return the loss of each step, and the final parameters and optimizer state."""

    @jax.jit
    def train_step(params: Any, opt_state: Any, x: jax.Array) -> tuple[Any, Any, jax.Array]:
        loss, gradients = jax.value_and_grad(loss_fn)(params, x)
        updates, opt_state = tx.update(gradients, opt_state, params)
        return optax.apply_updates(params, updates), opt_state, loss

    params = init(jax.random.key(0))
    opt_state, losses = tx.init(params), []
    for step in range(1, STEPS + 1):
        x = jax.random.normal(jax.random.key(step), (256, 2))
        x = x.at[0, 0].set(jnp.nan) if step == BAD_STEP else x
        params, opt_state, loss = train_step(params, opt_state, x)
        losses.append(float(loss))
    return losses, params, opt_state


def main() -> None:
    for name, tx in (("bare", optax.adamw(3e-3)), ("guard", gs.guard(optax.adamw(3e-3)))):
        losses, params, opt_state = train(tx)
        before, after = losses[BAD_STEP - 2], losses[-1]
        print(f"{name}: loss {before:.3f} before the bad batch, {after:.3f} at the end")
        if name == "guard":
            print(gs.explain(opt_state, params))


if __name__ == "__main__":
    main()
