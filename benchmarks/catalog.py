"""The catalog page, generated from the registry: every transform, its cost, and its weakness.

``python -m benchmarks.catalog`` writes ``docs/catalog.md``.
"""

import inspect
import itertools
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

import gradstable as gs
from benchmarks.counting import count_common_path, size
from tests.registry import Entry, entries, resolve
from tests.registry.entry import Bound

PAGE = Path(__file__).parents[1] / "docs" / "catalog.md"

_HEAD = """# Catalog

Every transform, rule, and loss, by family. This page is generated from the registry that also feeds
the contract suite (`make catalog`), so it is complete, and its figures are measured. *State* is
float32 words of state per parameter. *Words* are the float32 words that a step moves per parameter
beyond plain gradient descent, as XLA counts them on the path of a healthy step on the CPU. Both are
for the default arguments. A rule is counted as the transform made from it, and a wrapper with what
it wraps in the tests. The docstrings explain each *promise* and *weakness* in full, and measure the
weakness.

For any other optimizer in optax, use the guard, as in `gs.guard(optax.adafactor(1e-3))`: `dog`,
`lbfgs`, `momo`, `novograd`, `prodigy`, `schedule_free_sgd`, `signum`, `sm3`, and the rest. A test
tries all of optax and `optax.contrib`.
"""
_LEAVES, _SIDE = 4, 256


class Cost(NamedTuple):
    """What a transform costs on large leaves, in float32 words per parameter."""

    state: float
    words: float


def tree() -> dict[str, jax.ShapeDtypeStruct]:
    return {f"w{i}": jax.ShapeDtypeStruct((_SIDE, _SIDE), jnp.float32) for i in range(_LEAVES)}


def state_words(tx: optax.GradientTransformation) -> float:
    """Return the float32 words of state per parameter, counting only parameter-sized leaves."""
    state = jax.tree.leaves(jax.eval_shape(tx.init, tree()))
    large = [leaf for leaf in state if leaf.size >= _SIDE]
    return sum(leaf.size * leaf.dtype.itemsize for leaf in large) / 4 / size(tree())


def cost(tx: optax.GradientTransformation) -> Cost:
    plain = count_common_path(optax.scale(-1e-3), tree()).words
    words = count_common_path(optax.chain(tx, optax.scale(-1e-3)), tree()).words
    return Cost(state_words(tx), words - plain)


def row(entry: Entry, cost: Cost | None) -> str:
    figures = ("", "") if cost is None else (f"{cost.state:.1f}", f"{abs(cost.words):.1f}")
    cells = (f"`gs.{entry.name}`", entry.source, *figures, entry.promise, entry.weakness)
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def measured(entry: Entry) -> optax.GradientTransformation | None:
    """Return the transform whose cost a row shows: that of the defaults, if it has any.

    For a wrapper, whose cost depends on what it wraps, this is the first case in the tests; for a
    rule, it is the transform made from it.
    """
    known = {case.name: case.tx for other in entries() for case in other.cases}
    if not entry.cases:
        return known[entry.tested_by] if entry.tested_by else None
    factory = resolve(entry.name)
    parameters = inspect.signature(factory).parameters.values()
    needed = {p.name for p in parameters if p.default is p.empty and p.kind is not p.VAR_POSITIONAL}
    special = isinstance(entry.cases[0].tx, Bound) or {"inner", "transform"} & needed
    if special or not needed <= entry.required.keys():
        return entry.cases[0].tx
    made = factory(**entry.required)
    return gs.clipping.clip_by(made) if isinstance(made, gs.rules.Rule) else made


def page() -> str:
    """Return the text of the page."""
    lines = [_HEAD]
    by_family = sorted(entries(), key=lambda entry: entry.family)
    for family, group in itertools.groupby(by_family, key=lambda entry: entry.family):
        lines.append(f"## {family}\n")
        lines.append("| name | source | state | words | promise | weakness |")
        lines.append("|---|---|--:|--:|---|---|")
        for entry in sorted(group, key=lambda entry: entry.name):
            tx = measured(entry)
            lines.append(row(entry, None if tx is None else cost(tx)))
        lines.append("")
    return "\n".join(lines)


def main() -> None:
    PAGE.write_text(page(), encoding="utf-8")
    print(f"wrote {PAGE}")


if __name__ == "__main__":
    main()
