"""A run over all devices of all processes: FSDP, bad batches, checkpoints, a log of all bits."""

import functools
import json
import os
import signal
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from orbax.checkpoint import v1 as ocp

import gradstable as gs
from tests.persistence.digest import digest

STEPS, ROWS, SIZE = 13, 32, 64
# The steps after which a checkpoint is saved; the first is one that was rejected.
SAVES = (4, 8)
# The last row of these batches has a NaN, which only the last process ever sees.
BROKEN = (4, 6)
# The targets of these are far off, after the last checkpoint: the rollback goes back to a copy that
# was in it.
FAR_OFF = (9, 10)
# It takes two updates to go back. Before the second one, entries that a single update cannot lead
# back are zero; which ones these are hangs on their last bits, and so does a little of the loss.
ON_THE_WAY = 12


class Run(NamedTuple):
    """What is trained, from JSON."""

    name: str
    checkpoints: str  # the folder
    devices: int  # of all processes together
    only: tuple[str, ...] = ()  # which optimizers; default: all
    saves: bool = True
    resume: bool = False  # from the latest checkpoint, of which there must be one
    dies: int = -1  # the process that kills itself,
    dies_at: int = -1  # and the step that it has just begun then


def transforms() -> dict[str, optax.GradientTransformationExtraArgs]:
    rate = optax.cosine_decay_schedule(2e-3, STEPS)
    loss_rule = gs.rules.loss_spike(reject_at=2.0, rate=0.02, warmup_steps=4)
    return {
        "guard": gs.guard(optax.adamw(rate)),
        "stable_adamw": gs.stable_adamw(rate),
        # Under a guard that accepts the gradients of targets that are far off: they lead away.
        "rollback": gs.rollback(
            gs.guard(optax.adamw(rate), gs.rules.global_norm(1e9)), loss_rule, every=2, patience=2
        ),
    }


def init_params() -> Any:
    first, second = jax.random.split(jax.random.key(0))
    return {
        "hidden": {"kernel": jax.random.normal(first, (SIZE, 128)) / 8, "bias": jnp.zeros(128)},
        "out": {"kernel": jax.random.normal(second, (128, SIZE)) / 11},
    }


def loss_fn(params: Any, batch: Any) -> jax.Array:
    hidden = jnp.tanh(batch["x"] @ params["hidden"]["kernel"] + params["hidden"]["bias"])
    return jnp.mean((hidden @ params["out"]["kernel"] - batch["y"]) ** 2)


def rows(step: int) -> dict[str, np.ndarray]:
    """Return the rows that this process reads at a step: its own part of the batch alone."""
    x = np.random.default_rng(step).normal(size=(ROWS, SIZE)).astype(np.float32)
    y = np.sin(x[:, ::-1]) * np.float32(100.0 if step in FAR_OFF else 1.0)
    if step in BROKEN:
        x[-1, 0] = np.nan
    share = ROWS // jax.process_count()
    mine = slice(jax.process_index() * share, (jax.process_index() + 1) * share)
    return {"x": x[mine], "y": y[mine]}


class Trainer:
    """One optimizer on a mesh: where its state lies, how it begins, how it steps."""

    def __init__(self, tx: optax.GradientTransformationExtraArgs, mesh: Mesh) -> None:
        params = jax.eval_shape(init_params)
        of_params = gs.sharding.spread(params, "fsdp", mesh=mesh)
        of_state = gs.sharding.state_shardings(tx, params, shardings=of_params)
        self.shardings = {"params": of_params, "opt_state": of_state}
        everywhere = NamedSharding(mesh, PartitionSpec())

        def begin() -> Any:
            params = init_params()
            return {"params": params, "opt_state": tx.init(params)}

        def step(run: Any, batch: Any) -> tuple[Any, Any]:
            loss, gradients = jax.value_and_grad(loss_fn)(run["params"], batch)
            updates, opt_state = tx.update(gradients, run["opt_state"], run["params"], value=loss)
            params = optax.apply_updates(run["params"], updates)
            seen = {"loss": loss, "norm": optax.tree.norm(gradients)}
            return {"params": params, "opt_state": opt_state}, seen

        self.begin = jax.jit(begin, out_shardings=self.shardings)
        self.step = jax.jit(step, donate_argnums=0, out_shardings=(self.shardings, everywhere))
        # Whole on every device, to be compared with runs that are split otherwise.
        self.gather = jax.jit(lambda params: params, out_shardings=everywhere)

    @functools.cached_property
    def target(self) -> Any:
        """What is to be loaded: shapes and dtypes, and where it goes."""
        return jax.tree.map(
            lambda leaf, place: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place),
            jax.eval_shape(self.begin),
            self.shardings,
        )


def train(folder: Path, run: Run) -> dict[str, Any]:
    """Train to the last step, log every step, and return what is known at the end."""
    mesh = jax.make_mesh(
        (run.devices,), ("fsdp",), axis_types=(AxisType.Auto,), devices=jax.devices()[: run.devices]
    )
    by_rows = NamedSharding(mesh, PartitionSpec("fsdp"))
    trainers = {
        name: Trainer(tx, mesh)
        for name, tx in transforms().items()
        if name in run.only or not run.only
    }
    with (
        (folder / f"{run.name}-{jax.process_index()}.jsonl").open("w") as log,
        ocp.training.Checkpointer(Path(run.checkpoints)) as checkpointer,
    ):
        first, state = 0, {}
        if run.resume:
            first, state = load(checkpointer, trainers)
        else:
            state = {name: trainer.begin() for name, trainer in trainers.items()}
        note(log, first, state)
        for step in range(first + 1, STEPS + 1):
            local = rows(step)
            batch = jax.make_array_from_process_local_data(by_rows, local)
            seen = {}
            for name, trainer in trainers.items():
                state[name], seen[name] = trainer.step(state[name], batch)
                if (run.dies, run.dies_at) == (jax.process_index(), step):
                    os.kill(os.getpid(), signal.SIGKILL)  # without waiting for what it computes
                # On a CPU, steps in flight can starve each other of threads: one at a time.
                jax.block_until_ready(state[name])
            note(log, step, state, seen=seen, finite=bool(np.isfinite(local["x"]).all()))
            if step in SAVES and run.saves:
                schemas = {name: gs.checkpoints.state_schema(one) for name, one in state.items()}
                assert checkpointer.save_checkpointables(step, state, custom_metadata=schemas)
    return summary(folder, run, trainers, state)


def load(checkpointer: ocp.training.Checkpointer, trainers: dict[str, Trainer]) -> tuple[int, Any]:
    """Return step and state of the latest checkpoint, on the devices of this run."""
    assert checkpointer.latest is not None
    step = checkpointer.latest.step
    target = {name: trainer.target for name, trainer in trainers.items()}
    schemas: Any = checkpointer.metadata(step).custom_metadata
    for name, one in target.items():
        gs.checkpoints.check_schema(one, schemas[name])
    return step, checkpointer.load_checkpointables(step, target)


def note(log: Any, step: int, state: Any, *, seen: Any = None, finite: bool = True) -> None:
    """Write down what this process has of each run after a step, to the bit."""
    line: dict[str, Any] = {"step": step, "finite": finite, "runs": {}}
    for name, run in state.items():
        guarded = run["opt_state"].inner_state if name == "rollback" else run["opt_state"]
        line["runs"][name] = {
            "params": digest(local_parts(run["params"])),
            "inner": digest(local_parts(guarded.inner_state)),
            "all": digest(local_parts(run)),
            "health": plain(gs.health(run["opt_state"])._asdict()),
            "seen": plain(seen[name]) if seen else {},
        }
    log.write(json.dumps(line) + "\n")
    log.flush()


def local_parts(tree: Any) -> Any:
    """Return the parts of a tree that this process holds, by their place in the whole."""
    return jax.tree.map(
        lambda leaf: {str(part.index): np.asarray(part.data) for part in leaf.addressable_shards},
        tree,
    )


def plain(numbers: dict[str, Any]) -> dict[str, str]:
    """Return scalars as text that keeps every bit, also of a NaN."""
    return {name: np.asarray(number).tobytes().hex() for name, number in numbers.items()}


def summary(folder: Path, run: Run, trainers: dict[str, Trainer], state: Any) -> dict[str, Any]:
    """Return what a run has come to, and write its parameters into a file."""
    told: dict[str, Any] = {}
    device = jax.local_devices()[0]
    for name, trainer in trainers.items():
        params, opt_state = state[name]["params"], state[name]["opt_state"]
        gs.check(opt_state, params)
        whole = jax.device_get(trainer.gather(params))
        if jax.process_index() == 0:
            leaves = jax.tree_util.tree_leaves_with_path(whole)
            arrays = {jax.tree_util.keystr(path): leaf for path, leaf in leaves}
            np.savez(folder / f"{run.name}-{name}.npz", **arrays)
        told[name] = {
            "params": digest(whole),
            "story": gs.explain(opt_state, params),
            "held": held(state[name], device),
            "reckoned": gs.sharding.bytes_per_device(state[name]),
            "whole": sum(leaf.nbytes for leaf in jax.tree.leaves(state[name])),
        }
    return told


def held(tree: Any, device: Any) -> int:
    """Return how many bytes of a tree are on a device, as its arrays have it."""
    return sum(
        part.data.nbytes
        for leaf in jax.tree.leaves(tree)
        for part in leaf.addressable_shards
        if part.device == device
    )
