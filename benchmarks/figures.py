"""Numbers that pages quote: each is read from the code or measured here, and written once.

``python -m benchmarks.figures`` measures them, writes ``docs/figures.md``, and updates the pages
that quote them. There each number is between two comments, which readers do not see:
``<!-- figure: log_mad.clip_at -->4<!-- /figure -->``.
"""

import functools
import inspect
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import gradstable as gs
from benchmarks.counting import compile_step, count_common_path, large_tree
from gradstable._src.doctor.table import RULES
from tests.doctor.expected import EXPECTED
from tests.registry import entries
from tests.storm.optimizers import INNER

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "figures.md"
QUOTE = re.compile(r"(<!-- figure: ([\w.]+) -->)(.*?)(<!-- /figure -->)", re.DOTALL)
_ROW = re.compile(r"^\| `([\w.]+)` \| (.*?) \| (.*) \|$", re.MULTILINE)
# A norm that rises permanently: at these steps, with this scatter of its logarithm.
SHIFTS, SCATTERS, SEEDS = (20, 100, 500), (0.0, 0.05, 0.1, 0.2, 0.3), 32
AFTER = 300
_HEAD = """# Figures

Numbers that these pages quote in more than one place. `python -m benchmarks.figures` reads them
from the code or measures them, writes this page, and updates the quotes; a test checks all of them.
*Release* is the number of steps after which the default rule stops rejecting when the norm rises
permanently: the smallest and largest of {runs} runs, with log-normal norms that scatter by 0 to
{scatter:.0f} % and rise at step {shifts}.

| figure | value | what it is |
|---|---|---|
"""


class Figure(NamedTuple):
    """A number that pages quote."""

    about: str
    find: Callable[[], str]


def _default(function: Callable[..., object], name: str) -> Figure:
    value = inspect.signature(function).parameters[name].default
    called = f"gs.rules.{getattr(function, '__name__', '')}"
    return Figure(f"the default of `{name}` of `{called}`", lambda: f"{value:g}")


@functools.cache
def released(factor: int) -> tuple[int, int]:
    """Return the smallest and largest number of steps after which nothing is rejected anymore."""
    rule = gs.rules.log_mad()

    def step(state: object, norm: jax.Array) -> tuple[object, jax.Array]:
        verdict, state = rule.decide(gs.Measure.of(norm), state)
        return state, verdict.accept

    @jax.jit
    @jax.vmap
    def accepted(norms: jax.Array) -> jax.Array:
        return jax.lax.scan(step, rule.init(None), norms)[1]

    lasts: list[int] = []
    length = max(SHIFTS) + AFTER
    at = np.repeat(SHIFTS, SEEDS)
    for scatter in SCATTERS:
        rng = np.random.default_rng(0)
        norms = np.exp(scatter * rng.standard_normal((at.size, length)))
        risen = np.arange(length) >= at[:, None]
        rejected = ~np.asarray(
            accepted(jnp.asarray(norms * np.where(risen, factor, 1), jnp.float32))
        )
        last = np.where(rejected & risen, np.arange(length) + 1, 0).max(axis=1)
        lasts += np.maximum(last - at, 0).tolist()
    return min(lasts), max(lasts)


def _release(factor: int) -> Figure:
    def find() -> str:
        low, high = released(factor)
        return f"{low} to {high}"

    return Figure(f"release after a rise by a factor of {factor}, in steps", find)


def _largest(factor: int) -> Figure:
    return Figure(f"the largest of them for a factor of {factor}", lambda: f"{released(factor)[1]}")


def _words(tx: optax.GradientTransformation) -> float:
    return count_common_path(tx, large_tree()).words


def _words_of_record() -> str:
    guarded = gs.guard(optax.adamw(3e-4))
    return f"{_words(gs.record(guarded)) - _words(guarded):.2f}"


def _rules() -> int:
    names = {entry.name for entry in entries() if entry.name.startswith("rules.")}
    return len(names - {"rules.all_of"})  # which is not a rule itself, but combines several


_MOVED = "float32 words moved per parameter by a step of"
FIGURES: dict[str, Figure] = {
    "log_mad.clip_at": _default(gs.rules.log_mad, "clip_at"),
    "log_mad.reject_at": _default(gs.rules.log_mad, "reject_at"),
    "log_mad.reject_above": _default(gs.rules.log_mad, "reject_above"),
    "log_mad.release_x3": _release(3),
    "log_mad.release_x30": _release(30),
    "log_mad.release_x1000": _release(1000),
    "log_mad.largest_x3": _largest(3),
    "log_mad.largest_x30": _largest(30),
    "log_mad.largest_x1000": _largest(1000),
    "rules.count": Figure("rules in `gs.rules`", lambda: f"{_rules()}"),
    "optax.count": Figure("optax optimizers in the storm", lambda: f"{len(INNER)}"),
    "doctor.diagnoses": Figure(
        "diagnoses of the doctor: its rules, `too_short` and `healthy`", lambda: f"{len(RULES) + 2}"
    ),
    "doctor.runs": Figure("recorded runs that test the doctor", lambda: f"{len(EXPECTED)}"),
    "doctor.healthy_runs": Figure(
        "healthy runs among them",
        lambda: f"{sum(found == ('healthy',) for found in EXPECTED.values())}",
    ),
    "adamw.words": Figure(
        f"{_MOVED} `optax.adamw`",
        lambda: f"{compile_step(optax.adamw(3e-4), large_tree())[1].words:.0f}",
    ),
    "guard.words": Figure(
        f"{_MOVED} `gs.guard(optax.adamw)`", lambda: f"{_words(gs.guard(optax.adamw(3e-4))):.0f}"
    ),
    "record.words": Figure("words that `gs.record` around it adds", _words_of_record),
    # Measured once, on one machine: `make bench` prints them, and no test can check them.
    "guard.time": Figure("step time of the guarded AdamW over that of the bare one", lambda: "1.2"),
    "skip.time": Figure(
        "the same of `optax.apply_if_finite` around a clip and AdamW", lambda: "2.9"
    ),
}


def page() -> str:
    """Return the text of the page, with every number measured again."""
    runs = len(SHIFTS) * len(SCATTERS) * SEEDS
    shifts = ", ".join(map(str, SHIFTS[:-1])) + f" or {SHIFTS[-1]}"
    head = _HEAD.format(runs=runs, scatter=100 * max(SCATTERS), shifts=shifts)
    rows = [f"| `{name}` | {one.find()} | {one.about} |" for name, one in FIGURES.items()]
    return head + "\n".join(rows) + "\n"


def written() -> dict[str, str]:
    """Return the numbers on the page."""
    return {name: value for name, value, _ in _ROW.findall(PAGE.read_text(encoding="utf-8"))}


def quoting() -> Iterator[Path]:
    """Yield the pages that can quote a number."""
    yield from (ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md")
    yield from sorted((ROOT / "docs").rglob("*.md"))
    yield from sorted((ROOT / "examples").rglob("*.md"))


def put(text: str, values: dict[str, str]) -> str:
    """Return the text of a page with the numbers it quotes filled in."""
    return QUOTE.sub(lambda found: f"{found[1]}{values[found[2]]}{found[4]}", text)


def main() -> None:
    PAGE.write_text(page(), encoding="utf-8")
    values = written()
    for path in quoting():
        text = path.read_text(encoding="utf-8")
        if (new := put(text, values)) != text:
            path.write_text(new, encoding="utf-8")
            print(f"updated the numbers in {path.relative_to(ROOT)}")
    print(f"wrote {PAGE.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
