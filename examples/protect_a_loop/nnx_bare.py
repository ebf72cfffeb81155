"""A loop of Flax NNX that nobody has protected yet: one missing value ends it."""

import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx


def batches(steps: int = 200) -> np.ndarray:
    x = np.random.default_rng(0).normal(size=(steps, 32, 4)).astype(np.float32)
    x[120, 7, 1] = np.nan
    return x


@nnx.jit
def train_step(model: nnx.Module, optimizer: nnx.Optimizer, x: jnp.ndarray) -> jnp.ndarray:
    def loss_fn(model: nnx.Module) -> jnp.ndarray:
        return jnp.mean((model(x) - jnp.sin(x.sum(axis=1, keepdims=True))) ** 2)

    loss, gradients = nnx.value_and_grad(loss_fn)(model)
    optimizer.update(model, gradients)
    return loss


def main() -> float:
    loss = jnp.zeros(())
    rngs = nnx.Rngs(0)
    model = nnx.Sequential(nnx.Linear(4, 32, rngs=rngs), nnx.tanh, nnx.Linear(32, 1, rngs=rngs))
    optimizer = nnx.Optimizer(model, optax.adamw(1e-2), wrt=nnx.Param)
    for x in batches():
        loss = train_step(model, optimizer, x)
    return float(loss)


if __name__ == "__main__":
    print(f"loss {main():.4f}")
