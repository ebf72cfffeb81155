"""A loop of Equinox, where the model is the parameters: one missing value ends it."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax


def batches(steps: int = 200) -> np.ndarray:
    x = np.random.default_rng(0).normal(size=(steps, 32, 4)).astype(np.float32)
    x[120, 7, 1] = np.nan
    return x


tx = optax.adamw(1e-2)


@eqx.filter_jit
def train_step(model, opt_state, x):
    def loss_fn(model):
        return jnp.mean((jax.vmap(model)(x) - jnp.sin(x.sum(axis=1, keepdims=True))) ** 2)

    loss, gradients = eqx.filter_value_and_grad(loss_fn)(model)
    params = eqx.filter(model, eqx.is_inexact_array)
    updates, opt_state = tx.update(gradients, opt_state, params)
    return eqx.apply_updates(model, updates), opt_state, loss


def main() -> float:
    loss = jnp.zeros(())
    model = eqx.nn.MLP(4, 1, width_size=32, depth=1, key=jax.random.key(0))
    opt_state = tx.init(eqx.filter(model, eqx.is_inexact_array))
    for x in batches():
        model, opt_state, loss = train_step(model, opt_state, x)
    return float(loss)


if __name__ == "__main__":
    print(f"loss {main():.4f}")
