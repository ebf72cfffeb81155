"""The names of leaves, found again in a tree that has more of them."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import gradstable as gs
from gradstable._src.core.norms import measure
from gradstable._src.core.paths import Namer, find_leaves, leaf_keys, leaf_paths

TREE = {"a": {"w": 1.0, "b": 2.0}, "c": [3.0, 4.0]}


def key_of(tree: Any, index: int = 0) -> int:
    return int(leaf_keys(tree)[index])


def test_every_leaf_is_found_by_its_number() -> None:
    namer = Namer(TREE)
    found = [namer(i, int(key)) for i, key in enumerate(leaf_keys(TREE))]
    assert found == leaf_paths(TREE)


def test_numbers_are_no_matter_of_the_other_leaves_nor_of_their_order() -> None:
    part = {"c": [None, 4.0]}
    assert Namer(TREE)(0, key_of(part)) == "['c'][1]"
    assert find_leaves(leaf_keys(part).tolist(), TREE) == [3]


def test_no_number_is_zero_which_stands_for_no_name() -> None:
    assert key_of(1.0) != 0
    assert "its name was not recorded" in Namer(TREE)(2, 0)


@pytest.mark.parametrize(
    ("seen", "known", "name"),
    [
        ({"params": {"w": 1.0}}, {"w": 1.0}, "['w']"),
        ({"w": 1.0}, {"params": {"w": 1.0}}, "['params']['w']"),
        ({"w": 1.0}, {"deep": {"er": {"w": 1.0}}}, "['deep']['er']['w']"),
        ({"layer/w": 1.0}, {"layer": {"w": 1.0}}, "['layer']['w']"),
        (1.0, 1.0, "the only leaf"),
    ],
)
def test_containers_around_are_seen_through(seen: Any, known: Any, name: str) -> None:
    assert Namer(known)(0, key_of(seen)) == name


def test_what_may_be_one_of_several_is_said_so() -> None:
    known = {"fast": {"w": 1.0}, "slow": {"w": 1.0}, "deep": {"er": {"w": 1.0}}}
    told = Namer(known)(0, key_of({"w": 1.0}))
    assert told == (
        "leaf 0 of those that the guard saw (one of ['deep']['er']['w'], ['fast']['w'], "
        "['slow']['w'])"
    )
    # The whole path is beyond doubt.
    assert Namer({**known, "w": 1.0})(0, key_of({"w": 1.0})) == "['w']"


def test_what_is_not_there_is_said_so() -> None:
    told = Namer(TREE)(0, key_of({"elsewhere": 1.0}))
    assert told == "leaf 0 of those that the guard saw (no leaf of params has its path)"


def test_a_key_named_value_is_a_name() -> None:
    tree = {"attention": {"query": 1.0, "value": 2.0}}
    assert Namer(tree)(1, key_of(tree, 1)) == "['attention']['value']"
    assert key_of(tree, 1) != key_of({"attention": 2.0})


def test_a_model_its_state_and_a_plain_dictionary_have_the_same_numbers() -> None:
    model = nnx.Sequential(nnx.Linear(2, 3, rngs=nnx.Rngs(0)), nnx.LoRA(3, 2, 3, rngs=nnx.Rngs(1)))
    state = nnx.state(model)
    keys = set(leaf_keys(state).tolist())
    assert set(leaf_keys(model).tolist()) == keys
    assert set(leaf_keys(nnx.to_pure_dict(state)).tolist()) == keys
    places = find_leaves(leaf_keys(nnx.state(model, nnx.LoRAParam)).tolist(), state)
    assert ["lora" in path for path in leaf_paths(state)].count(True) == len(places)
    assert all("lora" in leaf_paths(state)[place] for place in places)


def test_the_measure_has_them_in_the_order_of_its_leaves() -> None:
    tree = jax.tree.map(jnp.asarray, TREE)
    measured = measure({**tree, "c": [jnp.asarray(jnp.nan), None]})
    keys = leaf_keys(TREE).tolist()
    assert np.asarray(measured.leaf_keys).tolist() == keys[:3]
    assert int(measured.worst_key) == keys[2]
    assert int(measure({}).worst_key) == 0
    assert int(gs.Measure.of([1.0, 2.0]).worst_key) == 0
