"""A training process to be killed: ``python -m tests.persistence.worker FOLDER [--kill POINT]``.

Digits from a Grain iterator, dropout, bad batches, and a checkpoint every four steps, by the
current API of Orbax. Each line it writes to ``FOLDER/log.jsonl`` is the digest of everything at one
step; the first line of a process says where it began.
"""

import argparse
import functools
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grain
import jax
import jax.numpy as jnp
import numpy as np
import optax
from orbax.checkpoint import v1 as ocp

import gradstable as gs
from tests.persistence import kill
from tests.persistence.digest import digest
from tests.registry import entries

EVERY, STEPS = 4, 16
# The families of which every member is trained, killed and resumed by ``--all``.
FAMILIES = ("Guards", "Low precision", "Recipes", "Recovery")


def one_transform() -> dict[str, optax.GradientTransformation]:
    """Return what keeps as much in its state as can be: rings, groups, a key, a schedule."""
    rate = optax.cosine_decay_schedule(1e-2, STEPS)
    guarded = gs.guard(
        optax.chain(gs.clipping.add_noise(1e-3), optax.adamw(rate, mu_dtype=jnp.bfloat16))
    )
    scaled = gs.loss_scale(gs.accumulate(guarded, 3), growth_interval=2)
    return {"one": gs.record(gs.precision.kahan(scaled), capacity=8)}


def all_transforms() -> dict[str, optax.GradientTransformation]:
    """Return all optimizers and wrappers that are registered."""
    return {
        case.name: case.tx
        for entry in entries()
        if entry.family in FAMILIES or entry.name == "record"
        for case in entry.cases
    }


class Digits:
    """A source with a broken record here and there."""

    def __init__(self, file: Path) -> None:
        with np.load(file) as data:
            self._images, self._labels = data["images"], data["labels"]

    def __len__(self) -> int:
        return len(self._labels)

    def __getitem__(self, row: int) -> dict[str, np.ndarray]:
        broken = np.float32(np.nan if row % 200 == 7 else 1.0)
        return {"x": self._images[row] * broken, "y": self._labels[row]}


def batches(file: Path) -> Any:
    return iter(grain.MapDataset.source(Digits(file)).shuffle(seed=0).batch(32).to_iter_dataset())


def start(transforms: dict[str, optax.GradientTransformation]) -> dict[str, Any]:
    def model(seed: int) -> Any:
        first, second = jax.random.split(jax.random.key(seed))
        return {
            "hidden": {"kernel": jax.random.normal(first, (64, 16)) / 8, "bias": jnp.zeros(16)},
            "out": {"kernel": jax.random.normal(second, (16, 10)) / 4, "bias": jnp.zeros(10)},
        }

    runs = {}
    for seed, (name, tx) in enumerate(transforms.items()):
        params = model(seed)
        runs[name] = {"params": params, "opt_state": tx.init(params)}
    return {"runs": runs, "key": jax.random.key(42)}


def loss_fn(params: Any, batch: Any, key: jax.Array) -> jax.Array:
    hidden = jax.nn.relu(batch["x"] @ params["hidden"]["kernel"] + params["hidden"]["bias"])
    hidden = jnp.where(jax.random.bernoulli(key, 0.8, hidden.shape), hidden / 0.8, 0.0)
    logits = hidden @ params["out"]["kernel"] + params["out"]["bias"]
    return optax.softmax_cross_entropy_with_integer_labels(logits, batch["y"]).mean()


def stepper(tx: optax.GradientTransformation) -> Callable[..., Any]:
    full = optax.with_extra_args_support(tx)

    @functools.partial(jax.jit, donate_argnums=0)
    def step(run: Any, batch: Any, key: jax.Array) -> Any:
        loss, gradients = jax.value_and_grad(loss_fn)(run["params"], batch, key)
        updates, opt_state = full.update(gradients, run["opt_state"], run["params"], value=loss)
        return {"params": optax.apply_updates(run["params"], updates), "opt_state": opt_state}

    return step


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--kill", choices=kill.KILL_POINTS, default="")
    parser.add_argument("--all", action="store_true")
    arguments = parser.parse_args()
    train(arguments.folder, all_transforms if arguments.all else one_transform, arguments.kill)


def train(
    folder: Path, make: Callable[[], dict[str, optax.GradientTransformation]], kill_at: str = ""
) -> None:
    dies = kill.KILL_POINTS[kill_at] if kill_at else kill.KillPoint(step=-1, resumes=-1)
    transforms = make()
    steppers = {name: stepper(tx) for name, tx in transforms.items()}
    data = batches(folder.parent / "digits.npz")
    begin = jax.jit(lambda: start(transforms))
    kept = ocp.training.preservation_policies.LatestN(2)
    if kill_at:
        kill.arm(kill_at)
    with (
        (folder / "log.jsonl").open("a") as log,
        ocp.training.Checkpointer(folder / "run", preservation_policy=kept) as checkpointer,
    ):
        first = checkpointer.latest.step if checkpointer.latest else 0
        state = load(checkpointer, first, jax.eval_shape(begin), data) if first else begin()
        note(log, first, state, data, resumed=True)
        for step in range(first + 1, STEPS + 1):
            state = advance(state, steppers, next(data))
            if step == dies.step and step % EVERY and not dies.event:
                kill.die()  # without waiting for what the step computes
            note(log, step, state, data)
            if step == dies.step and step % EVERY:
                kill.HANGING.wait()
                kill.die()
            if step % EVERY == 0:
                parts = {"state": state, "data": data}
                saving = checkpointer.save_checkpointables_async(
                    step, parts, custom_metadata=gs.checkpoints.state_schema(state)
                )
                assert saving is not None
                if step + 1 != dies.step:  # the save that hangs is not waited for
                    assert saving.result()
                if step == dies.step:
                    kill.die()


def load(checkpointer: ocp.training.Checkpointer, step: int, target: Any, data: Any) -> Any:
    """Return the state of a checkpoint; the iterator is moved to its place."""
    gs.checkpoints.check_schema(target, checkpointer.metadata(step).custom_metadata)
    here = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    target = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=here), target
    )
    return checkpointer.load_checkpointables(step, {"state": target, "data": data})["state"]


def advance(state: Any, steppers: dict[str, Callable[..., Any]], batch: Any) -> Any:
    key, dropout = jax.random.split(state["key"])
    runs = {name: step(state["runs"][name], batch, dropout) for name, step in steppers.items()}
    return {"runs": runs, "key": key}


def note(log: Any, step: int, state: Any, data: Any, *, resumed: bool = False) -> None:
    """Write down all bits, and where in the data they were reached."""
    line = {"step": step, "resumed": resumed, "data": data.get_state()}
    line["digests"] = {"key": digest(state["key"])}
    line["digests"] |= {name: digest(run) for name, run in state["runs"].items()}
    log.write(json.dumps(line) + "\n")
    log.flush()
    os.fsync(log.fileno())


if __name__ == "__main__":
    main()
