"""What low-precision moments and parameters cost in loss, and save in memory, on two networks.

Run ``python -m benchmarks.low_precision`` (twenty minutes on two cores). Every contestant trains
the digits CNN and the character transformer of the examples with guarded AdamW, from the same
parameters on the same batches; only the storage of moments differs. Changes are relative to float32
moments with the same seed: their mean and standard deviation over seeds. The second row shows how
much of this is luck: float32 with a learning rate that is larger by a millionth.
"""

import argparse
import dataclasses
import statistics
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from rich.console import Console
from rich.table import Table

import gradstable as gs
from benchmarks.dynamic_map import published_8_bit
from examples.char_transformer import input_pipeline as characters
from examples.char_transformer import train as char_train
from examples.char_transformer.configs import default as char_config
from examples.digits_cnn import input_pipeline as digits
from examples.digits_cnn import train as digits_train
from examples.digits_cnn.configs import default as digits_config

Schedule = Callable[[Any], Any]
Make = Callable[[Schedule], optax.GradientTransformation]
LAST = 100  # steps over which the training loss is averaged


def stepped(
    direction: optax.GradientTransformation, schedule: Schedule
) -> optax.GradientTransformation:
    decay, rate = optax.add_decayed_weights(1e-4), optax.scale_by_learning_rate(schedule)
    return optax.chain(direction, decay, rate)


def adamw(schedule: Schedule, **options: Any) -> optax.GradientTransformation:
    return stepped(gs.moments.scale_by_adam(**options), schedule)


def by_a_millionth(schedule: Schedule) -> Schedule:
    return lambda step: schedule(step) * (1.0 + 1e-6)


def adamw_8bit(schedule: Schedule) -> optax.GradientTransformation:
    return stepped(gs.moments.scale_by_adam_8bit(), schedule)


def in_bytes(schedule: Schedule) -> optax.GradientTransformation:
    return gs.precision.kahan(adamw_8bit(schedule), dtype=jnp.int8)


CONTESTANTS: Mapping[str, Make] = {
    "float32": adamw,
    "float32, rate + 1e-6": lambda schedule: adamw(by_a_millionth(schedule)),
    "bfloat16, nearest": lambda schedule: adamw(
        schedule, mu_dtype=jnp.bfloat16, nu_dtype=jnp.bfloat16
    ),
    "adamw_8bit": adamw_8bit,
    "bfloat16": lambda schedule: gs.precision.compress_moments(adamw(schedule), to="bfloat16"),
    "int16": lambda schedule: gs.precision.compress_moments(adamw(schedule), to="int16"),
    "int8": lambda schedule: gs.precision.compress_moments(adamw(schedule)),
    "8 bits as published": lambda schedule: published_8_bit(adamw(schedule)),
    "bfloat16 parameters": adamw,
    "bfloat16 parameters, kahan(adamw_8bit, int8)": in_bytes,
}
# Models whose parameters, and so their arithmetic, are in bfloat16.
BFLOAT16 = ("bfloat16 parameters", "bfloat16 parameters, kahan(adamw_8bit, int8)")


class Run(NamedTuple):
    """The result of one run."""

    trained: float  # mean loss of the last steps
    held_out: float  # loss on held-out data
    bytes_per_parameter: float  # of the parameters and the optimizer state


def digits_run(name: str, seed: int) -> Run:
    config = dataclasses.replace(digits_config.Config(), seed=seed, steps=600, cycles=1)
    data = digits.load(seed)
    model = _in_dtype(name, digits_train.make_model(config))
    stream = digits.batches(data.train, steps=config.steps, batch_size=64, seed=seed)
    step = digits_train.make_train_step(config)
    schedule = digits_train.make_schedule(config)
    trained, optimizer = _train(model, CONTESTANTS[name](schedule), step, stream)
    model.eval()
    held_out = digits_train.evaluate(model, data.test)[0]
    return Run(trained, float(held_out), _bytes(model, optimizer))


def characters_run(name: str, seed: int) -> Run:
    config = dataclasses.replace(char_config.Config(), seed=seed, steps=600)
    tokens = characters.encode(characters.text())
    text, held = characters.split(tokens, held_out=config.held_out)
    model = _in_dtype(name, char_train.make_model(config))
    stream = characters.batches(
        text, context=config.context, batch_size=config.batch_size, steps=config.steps, seed=seed
    )
    step = char_train.make_train_step(config)
    schedule = char_train.make_schedule(config)
    trained, optimizer = _train(model, CONTESTANTS[name](schedule), step, stream)
    held_out = char_train.evaluate(model, characters.whole(held, context=config.context))
    return Run(trained, float(held_out), _bytes(model, optimizer))


TASKS = {"digits CNN": digits_run, "character transformer": characters_run}


def _in_dtype(name: str, model: Any) -> Any:
    """Return a model with its parameters in the dtype of a contestant."""
    if name in BFLOAT16:
        params = nnx.state(model, nnx.Param)
        nnx.update(model, jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), params))
    return model


def _train(model: Any, tx: optax.GradientTransformation, step: Any, stream: Any) -> Any:
    optimizer = nnx.Optimizer(model, gs.guard(tx), wrt=nnx.Param)
    losses = [step(model, optimizer, batch) for batch in stream]
    return float(np.mean(jax.device_get(losses[-LAST:]))), optimizer


def _bytes(model: Any, optimizer: Any) -> float:
    """Return the bytes of parameters and optimizer state for each parameter."""
    params = jax.tree.leaves(nnx.state(model, nnx.Param))
    state = jax.tree.leaves(nnx.state(optimizer, nnx.optimizer.OptState))
    return sum(leaf.nbytes for leaf in [*params, *state]) / sum(leaf.size for leaf in params)


def spread(losses: list[float]) -> str:
    """Return the mean of some losses, and their standard deviation."""
    deviation = statistics.stdev(losses) if len(losses) > 1 else float("nan")
    return f"{statistics.mean(losses):.4f} ± {deviation:.4f}"


def summary(ratios: list[float]) -> str:
    """Return the mean of some ratios as a change in percent, and their spread."""
    percent = [100.0 * (ratio - 1.0) for ratio in ratios]
    spread = statistics.stdev(percent) if len(percent) > 1 else float("nan")
    return f"{statistics.mean(percent):+.2f} ± {spread:.2f}"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=3, help="runs of each (default 3)")
    parser.add_argument("--task", choices=TASKS, help="one network instead of both")
    parser.add_argument("--only", nargs="*", choices=CONTESTANTS, help="these, and float32")
    args = parser.parse_args()
    names = [
        name for name in CONTESTANTS if name == "float32" or name in (args.only or CONTESTANTS)
    ]
    for task in [args.task] if args.task else TASKS:
        table = Table(
            "moments", "training loss", "change %", "held-out loss", "change %", "bytes", title=task
        )
        runs = {name: [TASKS[task](name, seed) for seed in range(args.seeds)] for name in names}
        for name, these in runs.items():
            pairs = list(zip(these, runs["float32"], strict=True))
            table.add_row(
                name,
                spread([run.trained for run in these]),
                summary([run.trained / reference.trained for run, reference in pairs]),
                spread([run.held_out for run in these]),
                summary([run.held_out / reference.held_out for run, reference in pairs]),
                f"{these[0].bytes_per_parameter:.2f}",
            )
        Console(width=140).print(table)


if __name__ == "__main__":
    main()
