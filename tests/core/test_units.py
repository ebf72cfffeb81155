"""Units are where Flax has them, and never mix layers that are stacked in one leaf."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn
from flax import nnx

from gradstable._src.core.units import KINDS, check_units, is_vector, leaf_names, unit_axes


def zeros(**shapes: tuple[int, ...]) -> dict[str, jax.ShapeDtypeStruct]:
    return {name: jax.ShapeDtypeStruct(shape, jnp.float32) for name, shape in shapes.items()}


def kept(units: Any, tree: Any) -> dict[str, tuple[int, ...]]:
    """Return by path the axes that tell units apart: what ``unit_axes`` leaves over."""
    flat, _ = jax.tree_util.tree_flatten_with_path(tree)
    axes = unit_axes(units, tree)
    return {
        "/".join(leaf_names(jax.tree_util.keystr(path))): tuple(
            axis for axis in range(len(leaf.shape)) if axis not in within
        )
        for (path, leaf), within in zip(flat, axes, strict=True)
    }


def linen(module: nn.Module, *shapes: tuple[int, ...]) -> Any:
    inputs = [jnp.ones(shape) for shape in shapes]
    return jax.eval_shape(lambda: module.init(jax.random.key(0), *inputs))["params"]


def scanned(make: Callable[[], nn.Module], *shape: int, layers: int = 3) -> Any:
    class Body(nn.Module):
        @nn.compact
        def __call__(self, x: Any, _: None) -> tuple[Any, None]:
            return make()(x), None

    stack = nn.scan(Body, variable_axes={"params": 0}, split_rngs={"params": True}, length=layers)()
    return jax.eval_shape(lambda: stack.init(jax.random.key(0), jnp.ones(shape), None))["params"]


class Attention(nn.Module):
    use_bias: bool = True

    @nn.compact
    def __call__(self, x: Any) -> Any:
        return nn.MultiHeadDotProductAttention(num_heads=2, use_bias=self.use_bias, name="att")(x)


class Projections(nn.Module):
    """An attention layer of plain matrices, as in many models, under the names of the other."""

    use_bias: bool

    @nn.compact
    def __call__(self, x: Any) -> Any:
        query, key, value = (
            nn.Dense(8, use_bias=self.use_bias, name=name)(x) for name in ("query", "key", "value")
        )
        return nn.Dense(8, use_bias=self.use_bias, name="out")(query + key + value)


@pytest.mark.parametrize("use_bias", [True, False])
@pytest.mark.parametrize("kernel", [(5,), (3, 3), (3, 3, 3)], ids=len)
def test_convolution_keeps_its_outputs(kernel: tuple[int, ...], use_bias: bool) -> None:
    x = (1, *[8] * len(kernel), 4)
    params = linen(nn.Conv(6, kernel, use_bias=use_bias), x)
    ndim = len(kernel) + 2
    assert params["kernel"].shape == (*kernel, 4, 6)
    assert kept("output", params)["kernel"] == (ndim - 1,)
    # Without a bias, one dimension and three could be stacks of matrices and of images.
    safe = (ndim - 1,) if use_bias or len(kernel) == 2 else (0, ndim - 1)
    assert kept("flax", params)["kernel"] == safe


def test_dense_embedding_and_norms() -> None:
    class Model(nn.Module):
        @nn.compact
        def __call__(self, tokens: Any) -> Any:
            x = nn.Embed(11, 4, name="embed")(tokens)
            x = nn.LayerNorm(name="norm")(nn.Dense(5, name="dense")(x))
            return nn.BatchNorm(use_running_average=False, name="batch")(x)

    tree = jax.eval_shape(lambda: Model().init(jax.random.key(0), jnp.ones((2, 3), jnp.int32)))
    for units in ("flax", "output", "head"):
        assert kept(units, tree["params"]) == {
            "batch/bias": (),
            "batch/scale": (),
            "dense/bias": (),
            "dense/kernel": (1,),
            "embed/embedding": (0,),  # a unit is the vector of one token
            "norm/bias": (),
            "norm/scale": (),
        }


@pytest.mark.parametrize("use_bias", [True, False])
def test_attention_keeps_heads_and_outputs(use_bias: bool) -> None:
    params = linen(Attention(use_bias), (1, 5, 8))["att"]
    assert params["query"]["kernel"].shape == (8, 2, 4)
    assert params["out"]["kernel"].shape == (2, 4, 8)
    for units in ("flax", "output"):
        found = kept(units, params)
        assert {found[f"{name}/kernel"] for name in ("query", "key", "value")} == {(1, 2)}
        assert found["out/kernel"] == (2,)
    heads = kept("head", params)
    assert {heads[f"{name}/kernel"] for name in ("query", "key", "value")} == {(1,)}
    assert heads["out/kernel"] == (0,)
    if use_bias:
        assert (heads["query/bias"], heads["out/bias"]) == ((0,), ())


@pytest.mark.parametrize("use_bias", [True, False])
def test_scanned_attention_keeps_its_layers_too(use_bias: bool) -> None:
    params = scanned(lambda: Attention(use_bias), 1, 5, 8)
    flax, stacked, heads = (kept(units, params) for units in ("flax", "stacked", "head"))
    assert flax["Attention_0/att/query/kernel"] == (0, 2, 3)
    assert flax["Attention_0/att/out/kernel"] == (0, 3)
    assert heads["Attention_0/att/query/kernel"] == (0, 2)
    assert heads["Attention_0/att/out/kernel"] == (0, 1)
    kernels = [name for name in flax if name.endswith("kernel")]
    assert [flax[name] for name in kernels] == [stacked[name] for name in kernels]


SCANNED = {
    "dense": (lambda: nn.Dense(8), (1, 8), (0, 2)),
    "dense, no bias": (lambda: nn.Dense(8, use_bias=False), (1, 8), (0, 2)),
    "convolution, 1-D": (lambda: nn.Conv(8, (5,)), (1, 9, 8), (0, 3)),
    "convolution, 2-D": (lambda: nn.Conv(8, (3, 3)), (1, 9, 9, 8), (0, 4)),
    "convolution, 2-D, no bias": (lambda: nn.Conv(8, (3, 3), use_bias=False), (1, 9, 9, 8), (0, 4)),
    "convolution, 3-D": (lambda: nn.Conv(8, (3, 3, 3)), (1, 9, 9, 9, 8), (0, 5)),
}


@pytest.mark.parametrize("what", SCANNED)
def test_scanned_layers_are_kept_apart(what: str) -> None:
    make, shape, expected = SCANNED[what]
    params = scanned(make, *shape)
    found = kept("flax", params)
    assert next(axes for path, axes in found.items() if path.endswith("kernel")) == expected
    assert all(axes == (0,) for path, axes in found.items() if path.endswith("bias"))


@pytest.mark.parametrize("use_bias", [True, False])
def test_pitfall_scanned_matrices_named_as_in_attention_do_not_mix(use_bias: bool) -> None:
    params = scanned(lambda: Projections(use_bias), 1, 8)
    found = kept("flax", params)
    for name in ("query", "key", "value", "out"):
        assert found[f"Projections_0/{name}/kernel"] == (0, 2)


def test_layers_scanned_twice_and_experts() -> None:
    assert kept("flax", zeros(wi=(4, 3, 8, 16), wo=(4, 3, 16, 8))) == {
        "wi": (0, 1, 3),
        "wo": (0, 1, 3),
    }
    assert kept("flax", {"dense": zeros(kernel=(4, 3, 8, 9), bias=(4, 3, 9))}) == {
        "dense/bias": (0, 1),
        "dense/kernel": (0, 1, 3),
    }


def test_several_outputs_are_those_of_the_bias() -> None:
    params = linen(nn.DenseGeneral((3, 2, 5)), (1, 8))
    assert params["kernel"].shape == (8, 3, 2, 5)
    assert kept("flax", params)["kernel"] == (1, 2, 3)


def test_sizes_that_allow_two_readings_never_mix_layers() -> None:
    # Eight layers of (8, 5), or outputs (8, 5): a size cannot tell.
    assert kept("flax", zeros(kernel=(8, 8, 5), bias=(8, 5)))["kernel"] == (0, 2)


class Pair(nnx.Module):
    def __init__(self, *, rngs: nnx.Rngs) -> None:
        self.attention = nnx.MultiHeadAttention(num_heads=2, in_features=8, decode=False, rngs=rngs)
        self.layers = nnx.List([nnx.Conv(2, 3, (3, 3), rngs=rngs), nnx.LayerNorm(4, rngs=rngs)])


def test_nnx_states_modules_and_dicts_give_the_same_units() -> None:
    model = nnx.eval_shape(lambda: Pair(rngs=nnx.Rngs(0)))
    state = nnx.state(model, nnx.Param)
    expected = {
        "attention/key/bias": (0,),
        "attention/key/kernel": (1, 2),
        "attention/out/bias": (),
        "attention/out/kernel": (2,),
        "attention/query/bias": (0,),
        "attention/query/kernel": (1, 2),
        "attention/value/bias": (0,),
        "attention/value/kernel": (1, 2),
        "layers/0/bias": (),
        "layers/0/kernel": (3,),
        "layers/1/bias": (),
        "layers/1/scale": (),
    }
    for tree in (state, nnx.to_pure_dict(state), model):
        assert kept("flax", tree) == expected


def test_nnx_layers_made_by_vmap_are_kept_apart() -> None:
    @nnx.split_rngs(splits=3)
    @nnx.vmap(in_axes=(0,), out_axes=0)
    def make(rngs: nnx.Rngs) -> Pair:
        return Pair(rngs=rngs)

    found = kept("flax", nnx.eval_shape(lambda: nnx.state(make(nnx.Rngs(0)), nnx.Param)))
    assert found["attention/query/kernel"] == (0, 2, 3)
    assert found["attention/out/kernel"] == (0, 3)
    assert found["layers/0/kernel"] == (0, 4)
    assert found["layers/1/scale"] == (0,)


def test_names_in_paths_of_every_kind() -> None:
    for path in ("['a'][0]['kernel']", "['a'][0]['kernel'].value", ".a[0].kernel.raw_value"):
        assert leaf_names(path) == ("a", "0", "kernel")
    assert leaf_names("['value']") == ("value",)
    assert leaf_names("") == ()


def test_leaves_without_names() -> None:
    tree = (jnp.zeros(()), jnp.zeros(3), jnp.zeros((2, 3)), jnp.zeros((4, 2, 3)))
    assert unit_axes("flax", tree) == ((), (0,), (0,), (1,))
    assert unit_axes("flax", jnp.zeros((2, 3))) == ((0,),)


def test_plain_kinds() -> None:
    tree = zeros(kernel=(4, 2, 3), scale=(4, 3), number=())
    assert kept("leaf", tree) == {"kernel": (), "number": (), "scale": ()}
    assert kept("layer", tree) == {"kernel": (0,), "number": (), "scale": (0,)}
    assert kept("stacked", tree) == {"kernel": (0, 2), "number": (), "scale": (0,)}
    assert kept("output", tree) == {"kernel": (2,), "number": (), "scale": ()}


def test_axes_functions_and_trees() -> None:
    tree = zeros(a=(4, 2, 3), b=(5, 3))
    assert kept((0, -1), tree) == {"a": (0, 2), "b": (0, 1)}
    assert kept((), tree) == {"a": (), "b": ()}
    assert kept({"a": "layer", "b": (1,)}, tree) == {"a": (0,), "b": (1,)}
    by_path = lambda path, leaf: "leaf" if path == "['b']" else (len(leaf.shape) - 1,)  # noqa: E731
    assert kept(by_path, tree) == {"a": (2,), "b": ()}


def test_a_list_of_kinds_is_a_tree() -> None:
    params = [jnp.zeros((2, 3)), jnp.zeros(3)]
    check_units(["output", "leaf"])
    assert unit_axes(["output", "leaf"], params) == ((0,), (0,))


def test_masked_and_missing_leaves_are_passed_over() -> None:
    tree = {"a": optax.MaskedNode(), "b": None, "kernel": jnp.zeros((3, 0))}
    assert unit_axes("flax", tree) == ((0,),)


@pytest.mark.parametrize(
    ("path", "ndim", "expected"),
    [("['w']", 1, True), ("['w']", 2, False), ("['n']['scale'].value", 2, True), ("", 0, True)],
)
def test_vectors_are_told_by_name_or_shape(path: str, ndim: int, expected: bool) -> None:
    assert is_vector(path, ndim) is expected


@pytest.mark.parametrize("units", [None, True, 1, 0.5, {1}, [0, 1]])
def test_what_is_no_notion_of_units_is_refused(units: Any) -> None:
    with pytest.raises(TypeError, match=r"units must be one of .* a tuple of axes"):
        check_units(units)


@pytest.mark.parametrize(
    ("units", "error", "told"),
    [
        ("rows", ValueError, "units must be one of .*'rows'"),
        ((3,), ValueError, r"leaf \['w'\] keep the axes \(3,\), but it has 2 dimensions"),
        (lambda path, leaf: "rows", ValueError, r"leaf \['w'\] must be one of .*'rows'"),
        (lambda path, leaf: None, TypeError, r"leaf \['w'\] must be one of .*None"),
        ({"v": "leaf"}, ValueError, "a tree like the parameters"),
        ({"w": "rows"}, ValueError, r"leaf \['w'\] must be one of .*'rows'"),
    ],
)
def test_errors_name_the_leaf(units: Any, error: type[Exception], told: str) -> None:
    with pytest.raises(error, match=told):
        unit_axes(units, {"w": np.zeros((2, 3))})


def test_every_kind_takes_every_number_of_dimensions() -> None:
    for kind in KINDS:
        for ndim in range(7):
            within = unit_axes(kind, {"kernel": np.zeros((2,) * ndim)})[0]
            assert within == tuple(sorted(set(within)))
            assert set(within) <= set(range(ndim))
