"""What every rule on norms does with the same faults, in numbers.

Run ``python -m benchmarks.rules_table``; it takes a few seconds and is deterministic. The norms are
those of one leaf, log-normal around 1, with a scatter of 20 % unless stated otherwise. Every fault
starts at step 1000 of 4000. The columns:

- clips, rejects: the percentage of healthy steps that are scaled down or rejected, with norms that
  scatter by 10, 30, and 60 %;
- one, ten: the largest norm left of a spike of 1000 times the norm, and of ten in a row;
- 20 %: the same if every fifth norm is 50 times larger;
- x3, x30, x1000: steps after a permanent rise until the norm passes as it did before, to 80 % in
  the mean of 25 steps; after 3000 steps, "slow" is still on its way, and "never" is not;
- NaN: steps rejected in the 500 after a NaN, and whether everything the rule remembers is finite.
"""

import argparse
import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console
from rich.table import Table

import gradstable as gs
from gradstable.rules import Rule, UnitNorms, all_of

STEPS, FAULT = 4_000, 1_000
SIGMAS = (0.1, 0.3, 0.6)
RISES = (3, 30, 1_000)
HEADINGS = (
    "rule",
    "clips %",
    "rejects %",
    "one x1000",
    "ten x1000",
    "20 % x50",
    *(f"x{rise}" for rise in RISES),
    "NaN",
)
# One leaf with one entry of 1, for rules on leaves and units.
PARAMS = {"w": jnp.ones(1)}


class Contestant(NamedTuple):
    """A rule by its name in ``gs.rules``, and its arguments."""

    rule: str
    args: tuple[float, ...] = ()
    options: Mapping[str, Any] = {}

    @property
    def label(self) -> str:
        options = [f"{name}={value}" for name, value in self.options.items()]
        return f"{self.rule}({', '.join([*(f'{arg:g}' for arg in self.args), *options])})"

    def make(self) -> Rule:
        return getattr(gs.rules, self.rule)(*self.args, **self.options)


CONTESTANTS = (
    Contestant("log_mad"),
    Contestant("global_norm", (1.0,)),
    Contestant("block_norm", (1.0,)),
    Contestant("block_rms", (1.0,)),
    Contestant("unit_norm", (1.0,)),
    Contestant("percentile", (10.0,)),
    Contestant("percentile", (90.0,)),
    Contestant("zscore"),
    Contestant("zscore", options={"max_norm": None}),
    Contestant("zscore", options={"max_norm": None, "mode": "percentile"}),
    Contestant("adagc"),
    Contestant("group_norm"),
    Contestant("gradient_stabilizer"),
    Contestant("window_clip"),
    Contestant("window_sigma"),
    Contestant("ema_multiple"),
)
# Rules that are not tested, and why.
EXCLUDED = {
    "all_of": "combines rules",
    "loss_spike": "judges losses, not norms (tests/rules/test_loss_spike.py has its figures)",
}


class Row(NamedTuple):
    """The results of one rule."""

    clipped: tuple[float, ...]  # percent, one for each of SIGMAS
    rejected: tuple[float, ...]  # percent, one for each of SIGMAS
    one: float  # norm left of the spike
    ten: float
    fifth: float
    released: tuple[int | str, ...]  # steps, "slow" or "never", one for each of RISES
    after_nan: int  # rejected steps
    finite: bool


@functools.cache
def scenarios() -> dict[str, np.ndarray]:
    """Return the norms of each scenario by its name."""
    rng = np.random.default_rng(0)
    noise, rare = rng.standard_normal(STEPS), rng.random(STEPS) < 0.2
    usual = np.exp(0.2 * noise)
    step = np.arange(STEPS)
    spikes = {
        "one": step == FAULT,
        "ten": (step >= FAULT) & (step < FAULT + 10),
    }
    return {
        **{f"clean {sigma}": np.exp(sigma * noise) for sigma in SIGMAS},
        **{name: np.where(here, 1_000.0, usual) for name, here in spikes.items()},
        "fifth": np.where(rare & (step >= FAULT), 50.0, 1.0) * usual,
        **{f"x{rise}": np.where(step >= FAULT, rise, 1.0) * usual for rise in RISES},
        "nan": np.where(step == FAULT, np.nan, usual),
    }


def simulate(rule: Rule) -> tuple[dict[str, np.ndarray], bool]:
    """Return the scale of each step by scenario, 0 if rejected, and whether the state is finite."""
    judge = all_of(rule)

    def measure(norm: jax.Array) -> gs.Measure:
        leaf = norm.reshape(1)
        units = [
            UnitNorms((leaf,), (jnp.ones(1),) if need.params else None, (1,))
            for need in judge.needs
        ]
        return gs.Measure.of(norm)._replace(units=tuple(units))

    def body(state: Any, norm: jax.Array) -> tuple[Any, jax.Array]:
        verdict, state = judge.decide(measure(norm), state, params=PARAMS)
        return state, verdict.least_scale

    def run(norms: jax.Array) -> tuple[Any, jax.Array]:
        return jax.lax.scan(body, judge.init(PARAMS), norms)

    given = scenarios()
    norms = jnp.asarray(np.stack(list(given.values())), jnp.float32)
    states, scales = jax.jit(jax.vmap(run))(norms)
    finite = all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(states))
    return dict(zip(given, np.asarray(scales), strict=True)), finite


def row(rule: Rule) -> Row:
    """Return the results of one rule in all scenarios."""
    scales, finite = simulate(rule)
    left = {name: scales[name] * norms for name, norms in scenarios().items()}
    clean = [scales[f"clean {sigma}"][FAULT:] for sigma in SIGMAS]
    bad = scenarios()["fifth"] > 10.0
    return Row(
        clipped=tuple(100.0 * float(((each > 0) & (each < 1)).mean()) for each in clean),
        rejected=tuple(100.0 * float((each == 0).mean()) for each in clean),
        one=float(left["one"][FAULT]),
        ten=float(left["ten"][FAULT : FAULT + 10].max()),
        fifth=float(left["fifth"][bad].max()),
        released=tuple(_released(scales[f"x{rise}"]) for rise in RISES),
        after_nan=int((scales["nan"][FAULT + 1 : FAULT + 501] == 0).sum()),
        finite=finite,
    )


@functools.cache
def rows() -> dict[str, Row]:
    """Return all rows by the label of their rule."""
    return {each.label: row(each.make()) for each in CONTESTANTS}


def _released(scales: np.ndarray) -> int | str:
    usual, window = scales[FAULT - 500 : FAULT].mean(), 25
    means = np.convolve(scales[FAULT:], np.ones(window) / window, mode="valid")
    passing = np.flatnonzero(means >= 0.8 * usual)
    if passing.size:
        return int(passing[0])
    return "slow" if scales[-500:].mean() > 1.01 * scales[-1_000:-500].mean() else "never"


def cells(label: str, row: Row) -> list[str]:
    """Return a row as the cells under ``HEADINGS``."""
    return [
        label,
        " / ".join(f"{share:.1f}" for share in row.clipped),
        " / ".join(f"{share:.1f}" for share in row.rejected),
        *(f"{norm:.3g}" for norm in (row.one, row.ten, row.fifth)),
        *(str(steps) for steps in row.released),
        f"{row.after_nan}, {'finite' if row.finite else 'broken'}",
    ]


def markdown() -> str:
    """Return the table as a page, below an explanation of the columns."""
    lines = [list(HEADINGS), ["---", *["---:"] * (len(HEADINGS) - 1)]]
    lines += [cells(f"`{label}`", row) for label, row in rows().items()]
    table = "".join(f"| {' | '.join(line)} |\n" for line in lines)
    return f"# Rules on trial\n\n{__doc__}\n{table}"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write it to a page instead")
    args = parser.parse_args()
    if args.markdown:
        args.markdown.write_text(markdown(), encoding="utf-8")
        return
    table = Table(title="Norms that scatter by 20 % around 1", box=None, pad_edge=False)
    for heading in HEADINGS:
        table.add_column(heading, justify="left" if heading == "rule" else "right")
    for label, row in rows().items():
        table.add_row(*cells(label, row))
    Console().print(table)


if __name__ == "__main__":
    main()
