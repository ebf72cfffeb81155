"""What ``gs.rescale_start`` makes of initial parameters that are too large.

Run ``python -m benchmarks.exploding_start`` (about seven minutes on two cores), or with ``--quick``
for one task and one seed. The final loss in calm weather, at the best rate of AdamW, median over
seeds: from sound parameters, and from parameters 2 and 4 times as large, as they are and rescaled.
The design notes discuss the results.
"""

import argparse
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from gradstable_gauntlet import Task
from gradstable_gauntlet.contestants.bare import adamw
from gradstable_gauntlet.task import Disturbance
from gradstable_gauntlet.tasks import TASKS
from rich.console import Console
from rich.table import Table

import gradstable as gs

RATES = {
    "deep_mlp": 0.01,
    "tanh_rnn": 0.01,
    "relu_rnn": 0.01,
    "digits_cnn": 0.03,
    "lm_topics": 0.03,
}
TIMES = (1.0, 2.0, 4.0)
CALM = Disturbance(jnp.ones(()), jnp.ones(()))
OPTIMIZERS: dict[str, Callable[[optax.Schedule], optax.GradientTransformation]] = {
    "gs.guard(adamw)": lambda schedule: gs.guard(adamw(schedule)),
    "gs.govern(gs.stable_adamw)": lambda schedule: gs.govern(gs.stable_adamw(schedule)),
}


def starts(task: Task, times: float, seeds: range, *, rescaled: bool) -> list[Any]:
    """Return initial parameters, one for each seed."""
    found = []

    def loss_fn(params: Any, batch: Any) -> jax.Array:
        return task.loss(params, batch, CALM)

    for seed in seeds:
        params = jax.tree.map(lambda leaf: times * leaf, task.init(jax.random.key(seed)))
        if rescaled:
            batch = task.batch(jax.random.key(1_000 + seed))
            params = gs.rescale_start(loss_fn, params, batch).params
        found.append(params)
    return found


def losses(
    task: Task, tx: optax.GradientTransformation, params: list[Any], seeds: range
) -> np.ndarray:
    """Return the final loss of each seed."""
    tx = optax.with_extra_args_support(tx)

    def train(params: Any, key: jax.Array) -> jax.Array:
        def step(carry: Any, key: jax.Array) -> tuple[Any, None]:
            params, state = carry
            loss, gradient = jax.value_and_grad(task.loss)(params, task.batch(key), CALM)
            updates, state = tx.update(gradient, state, params, value=loss)
            return (optax.apply_updates(params, updates), state), None

        keys = jax.random.split(key, task.steps)
        (params, _), _ = jax.lax.scan(step, (params, tx.init(params)), keys)
        return task.held_out(params)

    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *params)
    keys = jnp.stack([jax.random.key(2_000 + seed) for seed in seeds])
    found = np.asarray(jax.jit(jax.vmap(train))(stacked, keys))
    jax.clear_caches()
    return np.where(np.isfinite(found), found, np.inf)


def main(arguments: Any = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one task, one seed")
    quick = parser.parse_args(arguments).quick
    seeds = range(1 if quick else 5)
    table = Table("task", "optimizer", "start", *(f"x {times:g}" for times in TIMES))
    for name, rate in list(RATES.items())[: 1 if quick else None]:
        task = TASKS[name]()
        schedule = optax.warmup_cosine_decay_schedule(0.0, rate, task.steps // 20, task.steps)
        for rescaled in (False, True):
            given = [starts(task, times, seeds, rescaled=rescaled) for times in TIMES]
            for label, make in OPTIMIZERS.items():
                found = [np.median(losses(task, make(schedule), one, seeds)) for one in given]
                start = "rescaled" if rescaled else "as it is"
                table.add_row(name, label, start, *(f"{loss:.3g}" for loss in found))
    Console().print(table)


if __name__ == "__main__":
    main()
