"""Does a run recover? Real models and real faults, with and without recovery.

Run ``python -m benchmarks.recovery`` (about three minutes on two cores). The learning rate is a
hundred times too high for 50 steps, so that the run leaves its basin: with ``gs.guard`` alone, and
with ``gs.rollback`` and ``gs.backoff`` around it. Losses are on held-out data at the end; each loss
with the fault is a ratio to that of the same optimizer without it. Also, a network in float16, with
an initial loss scale of 2**24, is compared with float32.
"""

import argparse
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from rich.console import Console
from rich.table import Table

import gradstable as gs
from benchmarks.small_tasks import Task, adding_rnn, decoder_lm, digits_cnn

TOO_HIGH, FOR_STEPS = 100.0, 50


class Scenario(NamedTuple):
    """A task, and when its learning rate is too high."""

    task: Callable[[], Task]
    rate: float
    steps: int
    fault_at: int


SCENARIOS = {
    "digits CNN": Scenario(digits_cnn, 1e-3, 1500, 600),
    "ReLU RNN, radius 1.5": Scenario(partial(adding_rnn, length=30), 1e-3, 3000, 2000),
    "decoder LM": Scenario(decoder_lm, 3e-3, 1500, 600),
}


class Outcome(NamedTuple):
    """The result of one run."""

    held_out: float
    losses: np.ndarray
    params: Any
    state: Any


def guarded(scenario: Scenario) -> optax.GradientTransformation:
    """Return guarded AdamW whose updates are multiplied by the argument ``too_high``."""

    def multiply(updates: Any, state: Any, params: Any = None, **given: Any) -> Any:
        del params
        return jax.tree.map(lambda u: u * given["too_high"], updates), state

    fault = optax.GradientTransformationExtraArgs(optax.identity().init, multiply)
    schedule = optax.cosine_decay_schedule(scenario.rate, scenario.steps)
    return gs.guard(optax.chain(optax.adamw(schedule), fault))


def recovering(scenario: Scenario) -> optax.GradientTransformation:
    """Return the same with rollback; steps grow back quickly, since the runs are short."""
    return gs.backoff(gs.rollback(guarded(scenario)), recovery=25)


def train(
    task: Task, tx: optax.GradientTransformation, *, steps: int, seed: int, fault_at: int = -1
) -> Outcome:
    """Train from a seed, with a fault from that step on unless it is negative."""
    full, key = optax.with_extra_args_support(tx), jax.random.key(seed)

    def step(carry: Any, number: jax.Array) -> Any:
        params, state = carry
        batch = task.batch(jax.random.fold_in(key, number))
        loss, gradients = jax.value_and_grad(task.loss)(params, batch)
        ill = (fault_at >= 0) & (number >= fault_at) & (number < fault_at + FOR_STEPS)
        too_high = jnp.where(ill, TOO_HIGH, 1.0)
        updates, state = full.update(gradients, state, params, value=loss, too_high=too_high)
        return (optax.apply_updates(params, updates), state), loss

    params = task.init(key)
    start = params, tx.init(params)
    (params, state), losses = jax.jit(lambda c: jax.lax.scan(step, c, jnp.arange(steps)))(start)
    return Outcome(float(task.held_out(params)), np.asarray(losses), params, state)


def in_float16(*, seed: int, steps: int = 400) -> dict[str, Any]:
    """Train the digits CNN in float32, and in float16 with dynamic loss scaling from 2**24."""
    schedule = optax.cosine_decay_schedule(2e-3, steps)
    wide = digits_cnn()
    straight = train(wide, gs.guard(optax.adamw(schedule)), steps=steps, seed=seed)
    half = digits_cnn(dtype=jnp.float16)
    tx = gs.loss_scale(gs.guard(optax.adamw(schedule)), init_scale=2.0**24, growth_interval=100)
    key = jax.random.key(seed)

    def step(carry: Any, number: jax.Array) -> Any:
        params, opt_state = carry
        batch = half.batch(jax.random.fold_in(key, number))

        # In the backward pass the scaled loss goes through float16, as the activations do.
        gradients = jax.grad(lambda p: gs.scale_loss(opt_state, half.loss(p, batch)))(params)
        updates, new = tx.update(gradients, opt_state, params)
        state: Any = new
        params = optax.apply_updates(params, updates)
        finite = jnp.all(jnp.stack([jnp.all(jnp.isfinite(p)) for p in jax.tree.leaves(params)]))
        return (params, state), (state.loss_scale, finite)

    params = half.init(key)
    (params, state), (scales, finite) = jax.jit(lambda c: jax.lax.scan(step, c, jnp.arange(steps)))(
        (params, tx.init(params))
    )
    if wide.accuracy is None or half.accuracy is None:
        raise AssertionError
    return {
        "float32": float(wide.accuracy(straight.params)),
        "float16": float(half.accuracy(params)),
        "scales": np.asarray(scales),
        "always_finite": bool(np.all(finite)),
        "overflows": int(state.overflows),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=3, help="runs of each (default 3)")
    parser.add_argument("--task", choices=SCENARIOS, help="one network instead of all")
    args = parser.parse_args()
    console = Console()
    table = Table(title="Held-out loss, and its factor with the rate x 100 for 50 steps")
    for column in ("task", "seed", "guard", "with fault", "rollback", "with fault", "returns"):
        table.add_column(column)
    for name in [args.task] if args.task else SCENARIOS:
        scenario = SCENARIOS[name]
        task = scenario.task()
        for seed in range(args.seeds):
            cells: list[str] = []
            for tx in (guarded(scenario), recovering(scenario)):
                run = partial(train, task, tx, steps=scenario.steps, seed=seed)
                calm, ill = run(), run(fault_at=scenario.fault_at)
                cells += [f"{calm.held_out:.4f}", f"x {ill.held_out / calm.held_out:.3f}"]
                returns = getattr(ill.state, "returns", 0)
            table.add_row(name, str(seed), *cells, str(int(returns)))
    console.print(table)
    table = Table("seed", "float32", "float16", "overflows", "first scale", "last scale",
                  title="Digits CNN, accuracy on held-out images")  # fmt: skip
    for seed in range(args.seeds):
        out = in_float16(seed=seed)
        table.add_row(
            str(seed), f"{out['float32']:.4f}", f"{out['float16']:.4f}", str(out["overflows"]),
            f"{2.0**24:g}", f"{out['scales'][-1]:g}",
        )  # fmt: skip
    console.print(table)


if __name__ == "__main__":
    main()
