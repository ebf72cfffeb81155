"""Small checkpoints that every later version loads; ``python -m tests.persistence.golden`` adds.

Each is a run of a few steps, saved by Flax's msgpack and, all in one, by Orbax. What is there is
never trained anew: a new entry of ``RUNS`` joins those that an older version has written. Those of
state schema 1 come by way of ``gs.checkpoints.upgrade_state``, as they do to users.
"""

import json
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import flax.serialization
import jax
import jax.numpy as jnp
import numpy as np
import optax
from orbax.checkpoint import v1 as ocp

import gradstable as gs
from gradstable._src.core.find import Snapshots
from tests.persistence.digest import digest

FOLDER = Path(__file__).parents[1] / "data" / "checkpoints"
STEPS = range(1, 5)  # what is saved comes after them, in the middle of a group of micro-batches
LATER = range(5, 7)  # by these the checkpoint is tried
# A step is run once, so that compiling it is what counts.
QUICK = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}


class Run(NamedTuple):
    """A transform, and the dtype of the parameters that it trains."""

    tx: optax.GradientTransformation
    dtype: str = "float32"


def _rate() -> optax.Schedule:
    return optax.cosine_decay_schedule(1e-2, 10)


RUNS = {
    "guard": Run(gs.guard(optax.adamw(_rate(), mu_dtype=jnp.bfloat16))),
    "guard_rules": Run(
        gs.guard(
            optax.sgd(0.1, momentum=0.9),
            gs.rules.percentile(90.0, window=8),
            gs.rules.zscore(),
            gs.rules.adagc(),
        )
    ),
    "stable_adamw": Run(gs.stable_adamw(1e-2, relative_floor=0.0)),
    "muon": Run(gs.muon(1e-2)),
    "schedule_free": Run(gs.recipes.schedule_free_adamw(1e-2)),
    "noise": Run(gs.guard(optax.chain(gs.clipping.add_noise(1e-3), optax.sgd(0.1)))),
    "accumulate": Run(gs.accumulate(gs.guard(optax.adamw(_rate())), 3)),
    "loss_scale": Run(gs.loss_scale(gs.guard(optax.sgd(0.1, momentum=0.9))), "float16"),
    "kahan": Run(gs.precision.kahan(gs.adamw(1e-2)), "bfloat16"),
    "rollback": Run(
        gs.backoff(
            gs.recovery.moment_hygiene(
                gs.rollback(gs.guard(optax.adam(1e-2)), every=1, patience=1), damp_after=1
            )
        )
    ),
    "compress_moments": Run(
        gs.guard(gs.precision.compress_moments(optax.adam(1e-2), min_size=1)),
    ),
    "record": Run(gs.record(gs.guard(optax.adam(1e-2)), capacity=8)),
}


def start(run: Run) -> dict[str, Any]:
    params = {
        "kernel": jnp.linspace(-1.0, 1.0, 6, dtype=run.dtype).reshape(3, 2),
        "bias": jnp.zeros(2, run.dtype),
    }
    return {"params": params, "opt_state": run.tx.init(params)}


def gradients(params: Any, step: int) -> Any:
    """Return the gradients of a step, of which the third is broken."""
    rng = np.random.default_rng(step)
    broken = np.nan if step == 3 else 1.0
    return jax.tree.map(
        lambda leaf: jnp.asarray(rng.normal(size=leaf.shape) * broken, leaf.dtype), params
    )


def advance(run: Run, saved: Any, steps: range) -> tuple[Any, Any]:
    """Return the last updates and what is to be saved after some steps."""
    update = jax.jit(optax.with_extra_args_support(run.tx).update, compiler_options=QUICK)
    updates, params, opt_state = None, saved["params"], saved["opt_state"]
    for step in steps:
        given = gradients(params, step)
        updates, opt_state = update(given, opt_state, params, value=jnp.float32(1.0 / step))
        params = optax.apply_updates(params, updates)
    return updates, {"params": params, "opt_state": opt_state}


def targets() -> dict[str, Any]:
    """Return the types of what is saved, by name."""
    return {name: jax.eval_shape(lambda run=run: start(run)) for name, run in RUNS.items()}


def expected() -> dict[str, Any]:
    return json.loads((FOLDER / "expected.json").read_text(encoding="utf-8"))


def load_msgpack(name: str) -> Any:
    """Return a checkpoint as it was saved: nested dictionaries."""
    return flax.serialization.msgpack_restore((FOLDER / f"{name}.msgpack").read_bytes())


def upgraded(run: Run, saved: Any) -> Any:
    """Return a checkpoint in the types of this version."""
    params = jax.tree.map(jnp.asarray, saved["params"])
    return {
        "params": params,
        "opt_state": gs.checkpoints.upgrade_state(saved["opt_state"], run.tx, params=params),
    }


def arrays_in(tree: Any) -> list[np.ndarray]:
    """Return the leaves of a tree, the stacks of copies row by row: until schema 7 each was one."""

    def is_stacked(node: Any) -> bool:
        return isinstance(node, Snapshots)

    found: list[np.ndarray] = []
    for node in jax.tree.leaves(tree, is_leaf=is_stacked):
        if is_stacked(node):
            stacks = [np.asarray(leaf) for leaf in jax.tree.leaves(node._replace(copies=()))]
            found += [np.asarray(row) for stack in stacks for row in stack]
        found += [
            np.asarray(leaf) for leaf in jax.tree.leaves(node.copies if is_stacked(node) else node)
        ]
    return found


def as_lists(tree: Any) -> Any:
    return [np.asarray(leaf, np.float64).ravel().tolist() for leaf in jax.tree.leaves(tree)]


def main() -> None:
    FOLDER.mkdir(parents=True, exist_ok=True)
    told = expected() if (FOLDER / "expected.json").exists() else {}
    checkpoints = {}
    for name, run in RUNS.items():
        if name in told:
            checkpoints[name] = upgraded(run, load_msgpack(name))
            continue
        _, saved = advance(run, start(run), STEPS)
        updates, _ = advance(run, saved, LATER)
        (FOLDER / f"{name}.msgpack").write_bytes(flax.serialization.to_bytes(saved))
        told[name] = {"sha256": digest(saved), "updates": as_lists(updates)}
        told[name]["schema"] = gs.checkpoints.state_schema(saved)
        checkpoints[name] = saved
    shutil.rmtree(FOLDER / "orbax", ignore_errors=True)
    ocp.save(FOLDER / "orbax", checkpoints)
    for file in (FOLDER / "orbax").rglob("commit_success.txt"):
        file.write_text("")  # where it was saved, which nobody reads and nobody needs to know
    text = json.dumps(told, indent=1)
    (FOLDER / "expected.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
