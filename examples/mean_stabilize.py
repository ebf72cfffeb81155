"""Mean stabilization by numbers: a gradient whose offset drowns out the signal.

A thousand parameters are fitted by gradient descent, and the loss falls. From batch 20 on, a broken
sensor adds the same amount to every entry of the gradient: its mean is then 611.461, with a
standard deviation of 12.6965, and the loss jumps from 7,000 to 1,000,000.

Run it with ``python examples/mean_stabilize.py``; it takes a few seconds. The page
``docs/mean_stabilization.md`` explains the output.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import gradstable as gs

NUM_PARAMS, BREAKS_AT, NUM_BATCHES = 1000, 20, 60
MEAN, STD = 611.461, 12.6965
LOSS_BEFORE, LOSS_AFTER = 7_000.0, 1_000_000.0
ADJUSTMENTS = ("none", "snr", "norm", "tanh", "softsign", "mu_law", "trust_region")


class Problem(NamedTuple):
    r"""A quadratic loss with a steep common direction, ``mean(w)``, and shallow others.

    .. math:: L(w) = \frac{a n}{2} (\bar w - c)^2 + \frac{b}{2} \sum_i (w_i - \bar w - t_i)^2
    """

    common_curvature: float  # a
    curvature: float  # b
    rate: float  # of bare descent
    targets: jax.Array  # t, with mean zero
    common_target: float = 0.0  # c

    def loss(self, w: jax.Array) -> jax.Array:
        mean = w.mean()
        common = self.common_curvature * NUM_PARAMS * (mean - self.common_target) ** 2
        return 0.5 * (common + self.curvature * jnp.sum((w - mean - self.targets) ** 2))

    def gradient(self, w: jax.Array, offset: jax.Array) -> jax.Array:
        return jax.grad(self.loss)(w) + offset


def article(common_target: float = 0.0) -> Problem:
    """Return a problem with the numbers above, derived backward from them.

    The loss before batch 20 is ``n std^2 / 2b``, which gives ``b``. With ``rate * a = 1`` the
    common direction follows the broken gradient in one step, and stays there: the loss is
    ``n mean^2 / 2a`` plus what remains in the others, which gives ``rate``.
    """
    b = NUM_PARAMS * STD**2 / (2 * LOSS_BEFORE)
    rate = 0.0
    for _ in range(50):  # a fixed point: the others are 0.6 % of the sum
        left = (1 - rate * b) ** 2 * LOSS_BEFORE
        rate = (LOSS_AFTER - left) * 2 / (NUM_PARAMS * MEAN**2)
    t = np.random.default_rng(0).normal(size=NUM_PARAMS)
    t = (t - t.mean()) / t.std() * STD / b / (1 - rate * b) ** BREAKS_AT
    return Problem(1 / rate, b, rate, jnp.asarray(t, jnp.float32), common_target)


def train(problem: Problem, tx: optax.GradientTransformation, *, broken: bool = True) -> np.ndarray:
    """Return the loss before every batch, and after the last one."""

    def step(carry: tuple[Any, Any], batch: jax.Array) -> tuple[tuple[Any, Any], jax.Array]:
        w, state = carry
        offset = jnp.where(batch >= BREAKS_AT, MEAN, 0.0) if broken else jnp.zeros(())
        updates, state = tx.update(problem.gradient(w, offset), state, w)
        return (optax.apply_updates(w, updates), state), problem.loss(w)

    @jax.jit
    def run() -> jax.Array:
        start = jnp.zeros(NUM_PARAMS)
        (w, _), losses = jax.lax.scan(step, (start, tx.init(start)), jnp.arange(NUM_BATCHES))
        return jnp.append(losses, problem.loss(w))

    return np.asarray(run())


def broken_gradient(problem: Problem) -> jax.Array:
    """Return the gradient of batch 20, after twenty healthy steps of descent."""
    gradient = jax.jit(problem.gradient)
    w = jnp.zeros(NUM_PARAMS)
    for _ in range(BREAKS_AT):
        w -= problem.rate * gradient(w, jnp.zeros(()))
    return gradient(w, jnp.asarray(MEAN))


def contestants(problem: Problem) -> dict[str, optax.GradientTransformation]:
    descend = optax.sgd(problem.rate)
    adam = optax.chain(gs.moments.scale_by_adam(), optax.scale(-0.1))
    return {
        "descent": descend,
        "mean removed, descent": optax.chain(gs.centering.mean_stabilize(), descend),
        "Adam": adam,
        "mean removed, Adam": optax.chain(gs.centering.mean_stabilize(), adam),
        "tanh, Adam": optax.chain(gs.centering.mean_stabilize("tanh"), adam),
    }


def describe(x: Any) -> str:
    values = np.asarray(x, np.float64)
    return f"{values.mean():12.4f}{values.std():12.4f}{np.abs(values).max():12.4f}"


def show_steps(g: jax.Array) -> None:
    """Print the result of every step for one gradient."""
    adam = gs.moments.scale_by_adam()
    print(f"\n{'gradient of batch 20':24}{'mean':>12}{'std':>12}{'largest':>12}")
    print(f"{'unchanged':24}{describe(g)}")
    print(f"{'  Adam, first step':24}{describe(adam.update(g, adam.init(g))[0])}")
    for adjust in ADJUSTMENTS:
        tx = gs.centering.mean_stabilize(adjust)
        u, _ = tx.update(g, tx.init(g))
        print(f"{adjust:24}{describe(u)}")
        print(f"{'  Adam, first step':24}{describe(adam.update(u, adam.init(u))[0])}")


def show_runs(title: str, problem: Problem, *, broken: bool) -> None:
    batches = (0, BREAKS_AT, BREAKS_AT + 1, BREAKS_AT + 10, NUM_BATCHES)
    print(f"\n{title:24}" + "".join(f"{f'batch {batch}':>12}" for batch in batches))
    for name, tx in contestants(problem).items():
        losses = train(problem, tx, broken=broken)
        print(f"{name:24}" + "".join(f"{losses[batch]:12,.0f}" for batch in batches))


def main() -> None:
    problem = article()
    show_steps(broken_gradient(problem))
    show_runs("the offset is a fault", problem, broken=True)
    show_runs("the mean is the signal", article(common_target=3.0), broken=False)


if __name__ == "__main__":
    main()
