"""What rules for leaves and units cost inside the guard, by XLA's own count."""

import optax

import gradstable as gs
from benchmarks.counting import Count, compile_step, count_common_path, large_tree
from gradstable.rules import Rule

TREE = large_tree(num_leaves=2, num_params=1_000_000)


def guarded(*rules: Rule) -> tuple[Count, Count]:
    tx = gs.guard(optax.adamw(3e-4), *rules)
    return count_common_path(tx, TREE), compile_step(tx, TREE)[1]


def test_leaf_norms_are_free_and_units_cost_one_read_of_what_they_see() -> None:
    one, whole = guarded()
    leaves, _ = guarded(gs.rules.block_norm(1.0), gs.rules.block_rms(1.0), gs.rules.adagc())
    assert leaves.words <= one.words + 0.01
    rows, all_of_rows = guarded(gs.rules.block_norm(1.0, units="output"))
    assert rows.words <= one.words + 1.05
    beside_weights, all_of_it = guarded(gs.rules.unit_norm())
    assert beside_weights.words <= one.words + 2.05
    assert max(rows.temp, beside_weights.temp) <= 0.01
    assert max(all_of_rows.temp, all_of_it.temp) <= whole.temp + 0.01
