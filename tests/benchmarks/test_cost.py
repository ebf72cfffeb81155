"""The cost of protection by XLA's own count, which does not wobble."""

import optax
import pytest

import gradstable as gs
from benchmarks.cost import OPTIMIZERS, contestants
from benchmarks.counting import compile_step, count_common_path, large_tree

TREE = large_tree()


@pytest.mark.parametrize(
    "protected", [gs.guard(optax.adamw(3e-4)), gs.adamw(3e-4)], ids=["guard", "gs.adamw"]
)
def test_adamw_moves_eleven_words_where_bare_moves_ten(
    protected: optax.GradientTransformation,
) -> None:
    _, bare = compile_step(optax.adamw(3e-4), TREE)
    _, whole = compile_step(protected, TREE)
    common = count_common_path(protected, TREE)
    assert bare.words == pytest.approx(10.0, abs=0.01)
    assert common.words <= 11.1
    assert common.temp <= 0.001
    assert whole.temp <= 0.02


@pytest.mark.parametrize("name", ["sgd, momentum", "rmsprop"])
def test_others_pay_one_read_of_the_gradients(name: str) -> None:
    rows = contestants(name)
    _, bare = compile_step(rows["bare"], TREE)
    assert count_common_path(rows["gs.guard"], TREE).words <= bare.words + 1.1
    assert compile_step(rows["gs.guard"], TREE)[1].temp <= bare.temp + 0.02


def test_a_second_rule_costs_nothing() -> None:
    one = count_common_path(gs.guard(optax.adamw(3e-4)), TREE)
    rules = (gs.rules.global_norm(1.0), gs.rules.log_mad(), gs.rules.global_norm(2.0))
    many = count_common_path(gs.guard(optax.adamw(3e-4), *rules), TREE)
    assert many.words <= one.words + 0.01


def test_every_optimizer_of_the_table_has_its_contestants() -> None:
    for name in OPTIMIZERS:
        assert list(contestants(name))[:2] == ["bare", "gs.guard"]
