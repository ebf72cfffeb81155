"""The same loop, protected, with a log and a report."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax

import gradstable as gs


def batches(steps: int = 200) -> np.ndarray:
    x = np.random.default_rng(0).normal(size=(steps, 32, 4)).astype(np.float32)
    x[120, 7, 1] = np.nan
    return x


tx = gs.protect(optax.adamw(1e-2))


@eqx.filter_jit
def train_step(model, opt_state, x):
    def loss_fn(model):
        return jnp.mean((jax.vmap(model)(x) - jnp.sin(x.sum(axis=1, keepdims=True))) ** 2)

    loss, gradients = eqx.filter_value_and_grad(loss_fn)(model)
    params = eqx.filter(model, eqx.is_inexact_array)
    updates, opt_state = tx.update(gradients, opt_state, params, value=loss)
    return eqx.apply_updates(model, updates), opt_state, loss


def main() -> float:
    loss = jnp.zeros(())
    model = eqx.nn.MLP(4, 1, width_size=32, depth=1, key=jax.random.key(0))
    opt_state = tx.init(eqx.filter(model, eqx.is_inexact_array))
    with gs.watch(tx, eqx.filter(model, eqx.is_inexact_array), "run.jsonl") as watch:
        for x in batches():
            model, opt_state, loss = train_step(model, opt_state, x)
            watch(opt_state)
    return float(loss)


if __name__ == "__main__":
    print(f"loss {main():.4f}")
