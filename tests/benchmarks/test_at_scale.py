"""Collectives are read right, and the guard adds one small all-reduce to a step on a mesh."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks.at_scale.layouts import layouts, shardings, split_leaves
from benchmarks.at_scale.models import MODELS, count, parameters
from benchmarks.at_scale.tables import in_bytes, markdown, models_table, told
from benchmarks.collectives import Collective, read_collectives

ROOT = Path(__file__).parents[2]

# As XLA writes it, in short. Names of what is never called must not count.
TEXT = """\
HloModule jit_step, is_scheduled=true, entry_computation_layout={(f32[8]{0})->f32[8]{0}}

%add (x: f32[], y: f32[]) -> f32[] {
  ROOT %sum = f32[] add(%x, %y)
}

%usual (p: (f32[8])) -> f32[8] {
  %p = (f32[8]{0}) parameter(0)
  ROOT %g = f32[8]{0} get-tuple-element(%p), index=0
}

%nested (p: f32[8]) -> f32[8] {
  ROOT %moved = f32[8]{0} collective-permute(%p), source_target_pairs={{0,1}}
}

%rare (p: (f32[8])) -> f32[8] {
  %g = f32[8]{0} get-tuple-element(%p), index=0
  %s = f32[2]{0} all-reduce(%g), channel_id=1, to_apply=%add
  ROOT %c = f32[8]{0} conditional(%i, %g, %g), branch_computations={%nested, %nested}
}

%unused (p: f32[8]) -> f32[64] {
  ROOT %g = f32[64]{0} all-gather(%p), dimensions={0}
}

%body (p: (f32[8], s32[])) -> (f32[8], s32[]) {
  ROOT %t = (bf16[4]{0}, s8[3]{0}) all-to-all(%a, %b), metadata={op_name="x body=%unused"}
}

%condition (p: (f32[8], s32[])) -> pred[] {
  ROOT %less = pred[] compare(%i, %n), direction=LT
}

%wrapped (p: f32[64]) -> f32[8] {
  ROOT %r = f32[8]{0} reduce-scatter(%p), dimensions={0}, to_apply=%add
}

ENTRY %main (p: f32[8]) -> f32[8] {
  %p = f32[8]{0} parameter(0), metadata={op_name="all-gather(x)"}
  %a.3 = (f32[]{:T(128)}, /*index=1*/f32[5]{0:T(256)S(1)}) all-reduce(%a, %b), to_apply=%add
  %start = (f32[8]{0}, f32[64]{0}) all-gather-start(%p), dimensions={0}
  %done = f32[64]{0} all-gather-done(%start)
  %w = ((f32[64]{0}), f32[8]{0}) async-start(%done), calls=%wrapped
  %x = f32[8]{0} async-done(%w)
  %loop = (f32[8]{0}, s32[]) while(%t), condition=%condition, body=%body, \
backend_config={"known_trip_count":{"n":"3"}}
  ROOT %c = f32[8]{0} conditional(%i, %u, %u, %u), branch_computations={%usual, %rare, %usual}
}
"""


def test_usual_and_rare_collectives_are_told_apart() -> None:
    usual, rare = read_collectives(TEXT)
    assert sorted(usual) == [
        ("all-gather", 4 * 64),
        ("all-reduce", 4 * 6),  # a tuple is one
        *[("all-to-all", 2 * 4 + 3)] * 3,  # a loop of three rounds
        ("reduce-scatter", 4 * 8),
    ]
    # Whatever lies in a rare branch is rare, the first branch in it, too.
    assert sorted(rare) == [
        ("all-reduce", 4 * 2),
        ("collective-permute", 4 * 8),
        ("collective-permute", 4 * 8),
    ]


def test_a_text_without_entry_is_refused() -> None:
    with pytest.raises(ValueError, match="ENTRY"):
        read_collectives("module @jit_step {\n}")


def test_both_sides_of_a_bool_condition_count() -> None:
    text = TEXT.replace(
        "branch_computations={%usual, %rare, %usual}",
        "true_computation=%rare, false_computation=%usual",
    )
    usual, rare = read_collectives(text)
    assert ("all-reduce", 8) in usual
    assert rare == (("collective-permute", 32),)


def test_models_have_the_sizes_in_their_names() -> None:
    for name, model in MODELS.items():
        total = count(parameters(model))
        assert abs(total / (float(name.removesuffix("B")) * 1e9) - 1) < 0.05, name
        assert count(parameters(model, stacked=True)) == total
    assert MODELS["8B"].layers == 64


def test_layouts_split_as_they_say() -> None:
    params = parameters(MODELS["70B"])
    of = layouts(256)
    parts = {name: shardings(layout, params, abstract=True) for name, layout in of.items()}
    whole, pair, zero, tensor = parts.values()
    query = lambda placed: placed["layers"]["layer_000"]["query"].shard_shape((8192, 8192))  # noqa: E731
    assert query(whole.params) == (32, 8192)
    assert query(pair.params) == query(zero.params) == (512, 8192)
    assert query(tensor.params) == (512, 512)
    assert query(zero.gradients) == (512, 512)
    assert pair.gradients is pair.params
    assert split_leaves(whole.params) == 80 * 9 + 3
    assert split_leaves(
        shardings(of["fsdp 256"], parameters(MODELS["1B"]), abstract=True).params
    ) == (
        20 * 7 + 2  # norms of 2048 entries stay whole
    )
    with pytest.raises(ValueError, match="power of two"):
        layouts(6)


def test_tables_tell_bytes_without_devices() -> None:
    layout = next(iter(layouts(256).items()))
    table = models_table({"400B": MODELS["400B"]}, layout, stacked=True, compiled=False)
    cells = dict(zip(table.headings, table.rows[0], strict=True))
    # 405.85e9 parameters: a 256th of 4 bytes each, twice that as moments, and gradients.
    assert cells["parameters"] == "6.34 GB"
    assert cells["state"] == "12.68 GB"
    assert cells["both + gradients"] == "25.37 GB"
    assert cells["all-reduce, computed"] == "48 B"
    assert cells["every step, compiled"] == "not compiled"
    assert "| 400B | 405.85e9 |" in markdown([table])


def test_collectives_and_bytes_read_well() -> None:
    found = [Collective("all-gather", 3_000_000), Collective("all-reduce", 8)] * 2
    assert told(found) == "2 all-reduce, 16 B; 2 all-gather, 6.00 MB"
    assert told([]) == "none"
    assert in_bytes(999_999) == "999,999 B"


# In a process of its own: the number of devices is fixed once JAX has looked for them.
PROGRAM = """
import json
import jax
jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_num_cpu_devices", 8)
# Machine code that nobody runs need not be fast; collectives come out the same.
jax.config.update("jax_disable_most_optimizations", True)
from benchmarks.at_scale.layouts import layouts, shardings, split_leaves
from benchmarks.at_scale.models import Model, parameters
from benchmarks.at_scale.steps import OPTIMIZERS, compile_step

params = parameters(Model(layers=1, width=256, hidden=512, keys=128, vocabulary=1024))
found = {}
for layout_name, layout in layouts(8).items():
    placed = shardings(layout, params, abstract=False)
    names = OPTIMIZERS if layout_name == "fsdp 8" else ("optax.adamw", "gs.guard(optax.adamw)")
    figures = {name: compile_step(OPTIMIZERS[name](), params, shardings=placed) for name in names}
    found[layout_name] = {
        "sums": split_leaves(placed.gradients),
        **{name: [each.paths, each.state] for name, each in figures.items()},
    }
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def compiled() -> dict[str, Any]:
    result = subprocess.run(
        [sys.executable, "-c", PROGRAM], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


def kinds(collectives: list[list[Any]]) -> set[str]:
    return {kind for kind, _ in collectives}


@pytest.mark.parametrize("layout", ["fsdp 8", "data 2 x fsdp 4"])
def test_the_guard_adds_one_all_reduce_of_a_number_a_leaf(
    compiled: dict[str, Any], layout: str
) -> None:
    of = compiled[layout]
    sums = of["sums"]
    assert sums == 7 + 2  # norms are small, and stay whole
    (bare_usual, bare_rare), _ = of["optax.adamw"]
    assert bare_usual == bare_rare == []
    (usual, rare), _ = of["gs.guard(optax.adamw)"]
    assert usual == [["all-reduce", 4 * sums]]
    assert rare


@pytest.mark.parametrize(
    "layout", ["fsdp 8", "data 2 x fsdp 4", "data 2 (ZeRO-1) x fsdp 4", "fsdp 2 x tensor 4"]
)
def test_norms_that_overflow_are_measured_once_more(compiled: dict[str, Any], layout: str) -> None:
    of = compiled[layout]
    (_, rare), _ = of["gs.guard(optax.adamw)"]
    assert kinds(rare) == {"all-reduce"}
    if layout in ("fsdp 8", "data 2 x fsdp 4"):
        assert sum(size for _, size in rare) == 4 * of["sums"]


@pytest.mark.parametrize("layout", ["data 2 (ZeRO-1) x fsdp 4", "fsdp 2 x tensor 4"])
def test_two_axes_add_no_more_than_all_reduces(compiled: dict[str, Any], layout: str) -> None:
    of = compiled[layout]
    (bare, _), _ = of["optax.adamw"]
    (usual, _), _ = of["gs.guard(optax.adamw)"]
    added = [each for each in usual if each not in bare]
    assert kinds(added) == {"all-reduce"}
    assert sorted(bare) == sorted(each for each in usual if each not in added)
    # One for each set of axes that leaves are split over; a sum over two axes may take two.
    assert 1 <= len(added) <= 4
    assert 4 * of["sums"] <= sum(size for _, size in added) <= 8 * of["sums"]


def test_clip_by_global_norm_reduces_as_much(compiled: dict[str, Any]) -> None:
    of = compiled["fsdp 8"]
    (clip, _), _ = of["clip_by_global_norm, adamw"]
    (guard, _), _ = of["gs.guard(optax.adamw)"]
    assert clip == guard


def test_stable_adamw_reduces_three_numbers_a_leaf(compiled: dict[str, Any]) -> None:
    of = compiled["fsdp 8"]
    (usual, _), _ = of["gs.stable_adamw"]
    # The squares of gradients, of parameters and of Adam's update, the last after the second.
    assert kinds(usual) == {"all-reduce"}
    assert sum(size for _, size in usual) == 3 * 4 * of["sums"]
    assert 2 <= len(usual) <= 1 + of["sums"]


def test_the_guard_holds_a_few_numbers_more(compiled: dict[str, Any]) -> None:
    counts = 4 * 128  # of the levels that norms have met
    for of in compiled.values():
        assert 0 < of["gs.guard(optax.adamw)"][1] - of["optax.adamw"][1] < 1024 + counts
