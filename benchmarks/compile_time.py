"""What protection costs before the first step: ``python -m benchmarks.compile_time``.

A training step of each optimizer is traced and compiled for trees of 64 x 64 leaves. Times are
those that the processor worked, of all its threads, so that other programs hardly change them; the
least of three, or of one for a thousand leaves and more. *Programs* are the operations that XLA
compiles separately and starts one after another.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

import gradstable as gs
from benchmarks.cost import optax_protection
from benchmarks.pages import write_page

LEAVES = (6, 81, 200, 1_000, 2_000)
_SIDE = 64
_MANY = 1_000

Make = Callable[[], optax.GradientTransformation]

STEPS: dict[str, Make] = {
    "optax.adamw": lambda: optax.adamw(3e-4),
    "chain(clip_by_global_norm, adamw)": lambda: optax.chain(
        optax.clip_by_global_norm(1.0), optax.adamw(3e-4)
    ),
    "apply_if_finite(chain(clip, adamw))": lambda: optax_protection(optax.adamw(3e-4)),
    "gs.guard(adamw)": lambda: gs.guard(optax.adamw(3e-4)),
    "gs.stable_adamw": lambda: gs.stable_adamw(3e-4),
    "gs.govern(guard(adamw))": lambda: gs.govern(gs.guard(optax.adamw(3e-4))),
    "gs.rollback(guard(adamw))": lambda: gs.rollback(gs.guard(optax.adamw(3e-4))),
}


class Cost(NamedTuple):
    """What it takes to get a step ready.

    Attributes:
      trace: seconds to trace and lower it.
      compile: seconds to compile it.
      programs: how many operations XLA compiles separately.
    """

    trace: float
    compile: float
    programs: int

    @property
    def seconds(self) -> float:
        return self.trace + self.compile


def cost(make: Make, num_leaves: int) -> Cost:
    """Trace and compile a step for a tree of this many equal leaves, with empty caches."""
    tx = optax.with_extra_args_support(make())
    leaf = jax.ShapeDtypeStruct((_SIDE, _SIDE), jnp.float32)
    params = {f"w{index:04}": leaf for index in range(num_leaves)}
    loss = jax.ShapeDtypeStruct((), jnp.float32)

    def step(params: Any, state: Any, gradients: Any, loss: Any) -> tuple[Any, Any]:
        updates, state = tx.update(gradients, state, params, value=loss)
        return optax.apply_updates(params, updates), state

    state = jax.eval_shape(tx.init, params)
    jax.clear_caches()
    start = time.process_time()
    lowered = jax.jit(step, donate_argnums=(0, 1)).lower(params, state, params, loss)
    traced = time.process_time()
    compiled = lowered.compile()
    return Cost(
        traced - start, time.process_time() - traced, str(compiled.as_text()).count(" fusion(")
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--leaves", type=int, nargs="+", default=LEAVES)
    parser.add_argument("--markdown", type=Path, help="write the page here")
    arguments = parser.parse_args()
    cost(STEPS["optax.adamw"], 1)  # what JAX does once
    lines = ["| leaves | step | trace s | compile s | ratio | programs |"]
    lines += ["| ---: | --- | ---: | ---: | ---: | ---: |"]
    print(*lines, sep="\n")
    for num_leaves in arguments.leaves:
        bare = 0.0
        for name, make in STEPS.items():
            times = 1 if num_leaves >= _MANY else 3
            found = min((cost(make, num_leaves) for _ in range(times)), key=lambda c: c.seconds)
            bare = bare or found.seconds
            lines.append(
                f"| {num_leaves:,} | {name} | {found.trace:.2f} | {found.compile:.2f} | "
                f"{found.seconds / bare:.2f} | {found.programs:,} |"
            )
            print(lines[-1], flush=True)
    if arguments.markdown:
        about = f"Measured on: jax {jax.__version__} on {jax.default_backend()}."
        write_page(arguments.markdown, "Compile time", __doc__, about, lines)


if __name__ == "__main__":
    main()
