"""Protected steps on a GPU, next to hand-written kernels and torch.

Run ``python -m benchmarks.speed.gpu --markdown docs/gpu.md`` on a machine with a GPU and nothing
else to do (ten minutes). Times are medians of chained steps. A floor is the time of the words that
no implementation can avoid, at the bandwidth of a triad in the same run: 1.00 is all of it.
"""

import argparse
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import optax

import gradstable as gs
from benchmarks.counting import large_tree, size
from benchmarks.speed import kernel
from benchmarks.speed.contestants import CONTESTANTS, Contestant
from benchmarks.speed.measure import RATE, Measured, Row, measure
from benchmarks.speed.table import show, wide_console, write_markdown
from benchmarks.speed.timing import data_sheet, in_a_row, medians
from benchmarks.speed.trees import GPU, Tree, trees

CHAINED = 20
NO_PALLAS = "a kernel cannot run here"
# On many small leaves, only how long it takes to start the programs matters.
FEW = ("optax.adamw", "gs.guard(optax.adamw)", "gs.adamw_8bit")
KERNELS: dict[str, tuple[kernel.Step, bool, int]] = {
    "kernel: AdamW": (kernel.adamw, False, 7),
    "kernel: norm, then AdamW": (kernel.adamw, True, 7),
    "kernel: 8 bits": (kernel.adamw_8bit, False, 4),
    "kernel: norm, then 8 bits": (kernel.adamw_8bit, True, 4),
}


def chosen_trees(*, tiny: bool) -> dict[str, tuple[Tree, dict[str, Contestant]]]:
    """Return trees, and who steps them."""
    few = {name: CONTESTANTS[name] for name in FEW}
    every = {
        name: each
        for name, each in CONTESTANTS.items()
        if name not in ("gs.adamw", "optax.sgd, momentum")
    }
    scale, small = (0.01, 3) if tiny else (GPU, 300)
    known = trees(scale, num_small=small)
    odd = large_tree(9, 200 if tiny else 100_000_000)
    return {
        "81 large leaves": (known["81 large leaves"], few if tiny else every),
        "1 giant leaf": (known["1 giant leaf"], few if tiny else every),
        f"{small} small leaves": (known[f"{small} small leaves"], few),
        "9 leaves of odd width": (_odd(odd), few | {"optax.adamw, leaves flat": Contestant(_flat)}),
    }


def _odd(tree: Tree) -> Tree:
    """Return matrices whose rows XLA cannot read four entries at a time."""
    shapes = ((leaf.shape[0] // 4 * 4, leaf.shape[1] | 1) for leaf in tree.values())
    return {
        name: jax.ShapeDtypeStruct(shape, jnp.float32)
        for name, shape in zip(tree, shapes, strict=True)
    }


def _flat(rate: Any) -> optax.GradientTransformation:
    """Return AdamW that sees every leaf as a vector."""
    inner = optax.adamw(rate)

    def flat(tree: Any) -> Any:
        return jax.tree.map(lambda leaf: leaf.reshape(-1), tree)

    def update(updates: Any, state: Any, params: Any = None) -> Any:
        new, state = inner.update(flat(updates), state, flat(params))
        return jax.tree.map(lambda u, like: u.reshape(like.shape), new, updates), state

    return optax.GradientTransformation(lambda params: inner.init(flat(params)), update)


def kernel_rows(title: str, tree: Tree, bandwidth: float, *, interpret: bool) -> list[Row]:
    """Return how long hand-written kernels take for the step of a tree."""
    runs: dict[str, Callable[[], None]] = {}
    for name, (step, guarded, _) in KERNELS.items():
        runs[name] = _kernel_steps(step, tree, guarded=guarded, interpret=interpret)
    try:
        times = medians(runs, 5)
    except Exception as error:  # a platform without Triton must not cost the other figures
        return [Row(title, NO_PALLAS, note=type(error).__name__)]
    return [
        Row(title, name).timed(times[name] / CHAINED, size(tree), necessary, bandwidth)
        for name, (_, _, necessary) in KERNELS.items()
    ]


def _kernel_steps(
    step: kernel.Step, tree: Tree, *, guarded: bool, interpret: bool
) -> Callable[[], None]:
    eight = step is kernel.adamw_8bit

    def once(count: Any, written: Any, gradients: Any) -> Any:
        norm = gs.global_norm(gradients) if guarded else jnp.float32(1.0)
        accept, scale = norm <= 2.0**60, jnp.minimum(1.0, 1.0 / norm)
        scalars = kernel.Scalars.at(count, accept, scale, rate=RATE, decay=1e-4)
        new = {
            name: kernel.by_kernel(step, scalars, gradients[name], arrays, interpret=interpret)
            for name, arrays in written.items()
        }
        return count + 1, new

    def start(leaf: Any) -> list[jax.Array]:
        if eight:
            return [jnp.full(leaf.shape, 0.1), jnp.zeros(leaf.shape, jnp.uint16)]
        return [jnp.full(leaf.shape, 0.1), jnp.zeros(leaf.shape), jnp.zeros(leaf.shape)]

    gradients = {name: jnp.full(leaf.shape, 0.01) for name, leaf in tree.items()}
    carry = jnp.int32(1), {name: start(leaf) for name, leaf in tree.items()}
    return in_a_row(jax.jit(once, donate_argnums=(0, 1)), carry, gradients, CHAINED)


def repeats_itself(tx: optax.GradientTransformation) -> bool:
    """Whether the same step gives the same bits, five times."""
    shape = (1021, 1023)
    keys = jax.random.split(jax.random.key(0), 3)
    params, one, two = ({"w": jax.random.normal(key, shape)} for key in keys)

    @jax.jit
    def step(params: Any, state: Any, gradients: Any) -> Any:
        updates, state = tx.update(gradients, state, params)
        return optax.apply_updates(params, updates), state

    before = step(params, tx.init(params), one)
    prints = {tuple(gs.fingerprint(step(*before, two)).tolist()) for _ in range(5)}
    return len(prints) == 1


def agrees(step: kernel.Step, *, interpret: bool) -> float:
    """Return the largest difference of new parameters between the kernel and XLA."""
    shape, keys = (211, 1021), jax.random.split(jax.random.key(1), 4)
    gradient, param, mu = (jax.random.normal(key, shape) for key in keys[:3])
    codes = jax.random.randint(keys[3], shape, 0, 2**16).astype(jnp.uint16)
    write = [param, codes] if step is kernel.adamw_8bit else [param, mu, jnp.abs(mu)]
    one, half = jnp.float32(1.0), jnp.float32(0.5)
    scalars = kernel.Scalars.at(jnp.int32(2), one, half, rate=1e-2, decay=0.1)
    theirs = jax.jit(kernel.by_xla, static_argnums=0)(step, scalars, gradient, write)[0]
    ours = kernel.by_kernel(step, scalars, gradient, write, interpret=interpret)[0]
    return float(jnp.max(jnp.abs(ours - theirs)))


def checks(*, interpret: bool) -> list[str]:
    """Return what else a GPU can show, one sentence each."""
    lines: list[str] = []
    for name in ("gs.guard(optax.adamw)", "gs.stable_adamw", "gs.adamw_8bit"):
        same = repeats_itself(CONTESTANTS[name].make(RATE))
        lines.append(f"- `{name}`: the same step gives {'the same' if same else 'DIFFERENT'} bits.")
    for step in (kernel.adamw, kernel.adamw_8bit):
        try:
            apart = f"{agrees(step, interpret=interpret):.1e} at most, with steps of about 1e-2"
        except Exception as error:
            apart = f"unknown ({type(error).__name__})"
        lines.append(
            f"- New parameters of the kernel `{step.__name__}` and of XLA differ by {apart}."
        )
    return lines


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.speed.gpu",
        description=__doc__,
        formatter_class=argparse.RawTextHelpFormatter,
    )
    parser.add_argument("--tiny", action="store_true", help="check that it runs, on any device")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write a page")
    args = parser.parse_args(argv)
    console, start = wide_console(), time.perf_counter()
    device = jax.devices()[0]
    known = data_sheet(device.device_kind)
    sheet = f", {known / 1e12:.1f} TB/s by its data sheet" if known else ""
    about = f"{device.device_kind} ({jax.default_backend()}{sheet}), jax {jax.__version__}"
    console.print(about)
    interpret = jax.default_backend() != "gpu"
    if interpret and not args.tiny:
        parser.error("no GPU here: --tiny checks that everything runs")
    titled: dict[str, Sequence[Row]] = {}
    for name, (tree, contestants) in chosen_trees(tiny=args.tiny).items():
        found: Measured = measure(name, tree, contestants, repeats=5, chained=CHAINED)
        rows = found.rows
        if "small" not in name:
            rows = rows + kernel_rows(name, tree, found.bandwidth, interpret=interpret)
        title = f"{name}, {size(tree) / 1e6:.0f} million parameters, "
        title += f"memory at {found.bandwidth / 1e12:.2f} TB/s"
        titled[title] = rows
        show(title, rows, console)
        console.print(f"{time.perf_counter() - start:.0f} s")
    lines = checks(interpret=interpret)
    console.print("\n".join(lines))
    if args.markdown:
        write_markdown(args.markdown, "Steps on a GPU", __doc__, about, titled, lines)


if __name__ == "__main__":
    main()
