"""The counts, as tables for a terminal and for a page."""

from collections.abc import Iterable
from typing import NamedTuple

import jax
from rich.console import Console
from rich.table import Table as RichTable

import gradstable as gs
from benchmarks.at_scale.layouts import Layout, shardings, split_leaves
from benchmarks.at_scale.models import Model, count, parameters
from benchmarks.at_scale.steps import OPTIMIZERS, Figures, compile_step, state_of
from benchmarks.collectives import KINDS, Collective

GUARD = "gs.guard(optax.adamw)"


class Table(NamedTuple):
    title: str
    headings: list[str]
    rows: list[list[str]]


def models_table(
    models: dict[str, Model], layout: tuple[str, Layout], *, stacked: bool, compiled: bool
) -> Table:
    """Count all models in one layout, and compile the guard's step for each on request.

    Computed: each split leaf has a sum of squares, one float32, that crosses devices.
    """
    headings = [
        "model",
        "entries",
        "layers x width",
        "leaves",
        "of them split",
        "parameters",
        "state",
        "both + gradients",
        "all-reduce, computed",
        "every step, compiled",
        "temporary",
        "seconds",
    ]
    rows = [
        [name, *_model_cells(model, layout[1], stacked=stacked, compiled=compiled)]
        for name, model in models.items()
    ]
    return Table(f"Per device, {layout[0]}: {GUARD}, float32", headings, rows)


def _model_cells(model: Model, layout: Layout, *, stacked: bool, compiled: bool) -> list[str]:
    params = parameters(model, stacked=stacked)
    placed = shardings(layout, params, abstract=not compiled)
    tx = OPTIMIZERS[GUARD]()
    state, of_state = state_of(tx, params, shardings=placed)
    held = gs.sharding.bytes_per_device(params, shardings=placed.params)
    gradients = gs.sharding.bytes_per_device(params, shardings=placed.gradients)
    of_guard = gs.sharding.bytes_per_device(state, shardings=of_state)
    parts = split_leaves(placed.gradients)
    cells = [
        f"{count(params) / 1e9:.2f}e9",
        f"{model.layers} x {model.width:,}",
        f"{len(jax.tree.leaves(params)):,}",
        f"{parts:,}",
        *map(in_bytes, (held, of_guard, held + gradients + of_guard)),
        f"{4 * parts:,} B",
    ]
    if not compiled:
        return [*cells, "not compiled", "", ""]
    figures = compile_step(tx, params, shardings=placed)
    return [*cells, told(figures.paths.usual), in_bytes(figures.temp), _seconds(figures)]


def layouts_table(
    name: str, model: Model, layouts: dict[str, Layout], names: Iterable[str], *, stacked: bool
) -> Table:
    """Compile the step of each optimizer in each layout."""
    headings = [
        "layout",
        "optimizer",
        "every step",
        "a rare step adds",
        "state",
        "temporary",
        "seconds",
    ]
    params = parameters(model, stacked=stacked)
    rows: list[list[str]] = []
    names = list(names)
    for label, layout in layouts.items():
        placed = shardings(layout, params, abstract=False)
        for optimizer in names:
            figures = compile_step(OPTIMIZERS[optimizer](), params, shardings=placed)
            rows.append(
                [
                    label,
                    optimizer,
                    told(figures.paths.usual),
                    told(figures.paths.rare),
                    in_bytes(figures.state),
                    in_bytes(figures.temp),
                    _seconds(figures),
                ]
            )
    kind = "layers stacked" if stacked else "layers as separate leaves"
    return Table(f"{name}, {kind}: one step, per device", headings, rows)


def told(collectives: Iterable[Collective]) -> str:
    """Return how many collectives of each kind there are, and their bytes."""
    sizes = {kind: [each.bytes for each in collectives if each.kind == kind] for kind in KINDS}
    texts = [f"{len(of)} {kind}, {in_bytes(sum(of))}" for kind, of in sizes.items() if of]
    return "; ".join(texts) or "none"


def in_bytes(number: int) -> str:
    """Return bytes with a unit: a million of them are an MB."""
    for unit, size in (("GB", 1e9), ("MB", 1e6)):
        if number >= size:
            return f"{number / size:.2f} {unit}"
    return f"{number:,} B"


def _seconds(figures: Figures) -> str:
    return f"{figures.trace + figures.compile:.0f}"


def show(table: Table) -> None:
    """Print a table."""
    shown = RichTable(title=table.title, title_justify="left")
    for heading in table.headings:
        shown.add_column(heading, overflow="fold")
    for row in table.rows:
        shown.add_row(*row)
    Console().print(shown)


def markdown(tables: Iterable[Table]) -> str:
    """Return tables for a page."""
    texts: list[str] = []
    for table in tables:
        lines = [table.headings, ["---"] * len(table.headings), *table.rows]
        rows = "".join(f"| {' | '.join(line)} |\n" for line in lines)
        texts.append(f"{table.title}:\n\n{rows}")
    return "\n".join(texts)
