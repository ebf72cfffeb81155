"""QK-Clip: what becomes of the weights, of the logits, and of maxima that cannot be used."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradstable as gs
from tests.oracles.qk_clip import qk_clip as oracle

RNG = np.random.default_rng(0)


def attention(heads: int = 4, key_heads: int | None = None, dtype: Any = jnp.float32) -> Any:
    """Return the parameters of one attention with inputs of 6 and heads of 3."""

    def projection(heads: int) -> dict[str, jax.Array]:
        return {
            "kernel": jnp.asarray(RNG.normal(size=(6, heads, 3)), dtype),
            "bias": jnp.asarray(RNG.normal(size=(heads, 3)), dtype),
        }

    key = projection(heads if key_heads is None else key_heads)
    return {"query": projection(heads), "key": key, "value": projection(heads)}


def clipped(params: Any, max_logits: Any, updates: Any = None, **options: Any) -> Any:
    """Return the parameters after a step of ``qk_clip`` alone."""
    tx = gs.clipping.qk_clip(**options)

    @jax.jit
    def step(params: Any, updates: Any, max_logits: Any) -> Any:
        updates, _ = tx.update(updates, tx.init(params), params, max_logits=max_logits)
        return optax.apply_updates(params, updates)

    updates = jax.tree.map(jnp.zeros_like, params) if updates is None else updates
    return step(params, updates, max_logits)


MAXIMA = jnp.asarray([50.0, 400.0, 100.0, 1e4])


@pytest.mark.parametrize("key_heads", [4, 2, 1])
@pytest.mark.parametrize("options", [{}, {"max_logit": 30.0, "alpha": 0.8}, {"alpha": 1.0}])
def test_equals_the_oracle(key_heads: int, options: dict[str, float]) -> None:
    params = attention(key_heads=key_heads)
    after = clipped(params, MAXIMA, **options)
    query, key = (np.asarray(params[name]["kernel"]) for name in ("query", "key"))
    expected = oracle(query, key, np.asarray(MAXIMA), **options)
    for name, kernel in zip(("query", "key"), expected, strict=True):
        before = np.abs(params[name]["kernel"]).max()
        np.testing.assert_allclose(after[name]["kernel"], kernel, rtol=1e-6, atol=1e-7 * before)
    jax.tree.map(np.testing.assert_array_equal, after["value"], params["value"])


def test_heads_below_the_threshold_keep_every_bit() -> None:
    params = attention()
    updates = jax.tree.map(lambda leaf: 1e-3 * leaf, params)
    after, plain = clipped(params, MAXIMA, updates), clipped(params, jnp.zeros(4), updates)
    jax.tree.map(np.testing.assert_array_equal, plain, optax.apply_updates(params, updates))
    for name in ("query", "key"):
        for head in (0, 2):
            for leaf in ("kernel", "bias"):
                one, other = after[name][leaf], plain[name][leaf]
                np.testing.assert_array_equal(one[..., head, :], other[..., head, :])


def test_updates_of_heads_below_the_threshold_keep_every_bit() -> None:
    """Also those that are lost beside their weight: what follows in the chain may scale them."""
    params, tx = attention(), gs.clipping.qk_clip()
    updates = jax.tree.map(lambda leaf: 1e-12 * leaf, params)
    new, _ = tx.update(updates, tx.init(params), params, max_logits=jnp.full(4, 100.0))
    jax.tree.map(np.testing.assert_array_equal, new, updates)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("of_updates", ["float32", "own"])
def test_parameters_become_the_rescaled_ones_exactly(dtype: str, of_updates: str) -> None:
    """Where a weight is at most halved, the difference has no rounding to do.

    Outside of ``jit``: inside, XLA may leave out the rounding of what lies between.
    """
    params = {name: attention(dtype=dtype)[name] for name in ("query", "key")}
    kind = dtype if of_updates == "own" else "float32"
    updates = jax.tree.map(lambda leaf: (0.01 * leaf).astype(kind), params)
    tx = gs.clipping.qk_clip()
    new, _ = tx.update(updates, tx.init(params), params, max_logits=jnp.full(4, 350.0))
    after = optax.apply_updates(params, new)
    factor = (jnp.asarray(100.0) / jnp.asarray(350.0)) ** jnp.asarray(0.5)

    def same_bits(found: Any, param: Any, update: Any) -> None:
        moved = optax.apply_updates(param, update).astype(jnp.float32)
        np.testing.assert_array_equal(found, (moved * factor).astype(dtype))

    jax.tree.map(same_bits, after, params, updates)


def test_what_is_more_than_halved_is_right_to_the_rounding_of_the_old_weight() -> None:
    params = {name: attention(dtype="bfloat16")[name] for name in ("query", "key")}
    after = clipped(params, jnp.full(4, 1e4))
    for name in params:
        before = np.asarray(params[name]["kernel"], np.float32)
        error = np.abs(np.asarray(after[name]["kernel"], np.float32) - 0.1 * before)
        assert (error <= 2.0**-8 * np.abs(before)).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, -5.0, 0.0])
def test_maxima_that_are_not_finite_leave_weights_alone(bad: float) -> None:
    params = attention()
    after = clipped(params, MAXIMA.at[1].set(bad).at[3].set(1.0))
    jax.tree.map(np.testing.assert_array_equal, after, params)


def test_logits_of_flax_attention_come_back_to_the_threshold() -> None:
    layer = nn.MultiHeadDotProductAttention(num_heads=2, qkv_features=8)
    inputs = jnp.asarray(RNG.normal(size=(3, 5, 6)), jnp.float32)
    params = layer.init(jax.random.key(0), inputs)["params"]
    params = jax.tree.map(lambda leaf: 4 * leaf, params)
    params["query"]["bias"] = params["query"]["bias"] + 3.0

    def maxima(params: Any) -> jax.Array:
        def heads(name: str) -> jax.Array:
            kernel, bias = params[name]["kernel"], params[name]["bias"]
            return jnp.einsum("btc,chd->bthd", inputs, kernel) + bias

        logits = jnp.einsum("bthd,bshd->bhts", heads("query"), heads("key")) / 2.0
        return logits.max((0, 2, 3))

    before = maxima(params)
    threshold = float(before.min() * 0.99)
    after = clipped(params, before, max_logit=threshold)
    np.testing.assert_allclose(maxima(after), threshold, rtol=1e-5)
    untouched = clipped(params, before, max_logit=float(before.max()))
    jax.tree.map(np.testing.assert_array_equal, untouched, params)


def test_weakness_one_large_logit_shrinks_a_head_for_good() -> None:
    params = attention()
    after = clipped(params, jnp.asarray([1e4, 0, 0, 0]))
    after = clipped(after, jnp.zeros(4))
    product = [
        jnp.sum(p["query"]["kernel"][:, 0] * p["key"]["kernel"][:, 0]) for p in (params, after)
    ]
    np.testing.assert_allclose(product[0] / product[1], 100.0, rtol=1e-4)


MODEL = {"blocks_0": {"attention": attention(2)}, "blocks_1": {"attention": attention(2)}}
HOT, COLD = jnp.asarray([400.0, 1.0]), jnp.zeros(2)


@pytest.mark.parametrize(
    "max_logits",
    [
        {"blocks_0/attention": HOT, "blocks_1/attention": COLD},
        {"blocks_0": {"attention": HOT}, "blocks_1": {"attention": COLD}},
        {
            "blocks_0": {"attention": {"max_logits": (HOT,)}},
            "blocks_1": {"attention": {"max_logits": (COLD,)}},
        },
    ],
    ids=["paths", "tree", "sown"],
)
def test_maxima_are_found_by_path(max_logits: Any) -> None:
    after = clipped(MODEL, max_logits)
    jax.tree.map(np.testing.assert_array_equal, after["blocks_1"], MODEL["blocks_1"])
    kernels = [tree["blocks_0"]["attention"]["query"]["kernel"] for tree in (after, MODEL)]
    np.testing.assert_allclose(kernels[0][:, 0], kernels[1][:, 0] / 2, rtol=1e-6)
    np.testing.assert_array_equal(kernels[0][:, 1], kernels[1][:, 1])


def test_other_names_and_kernels_without_an_axis_for_heads() -> None:
    params = attention(4, key_heads=2)
    flat = {
        f"{name}_proj": {"kernel": of["kernel"].reshape(6, -1), "bias": of["bias"].reshape(-1)}
        for name, of in params.items()
    }
    after = clipped(params, MAXIMA)
    of_flat = clipped(flat, MAXIMA, query="query_proj", key="key_proj")
    for name in params:
        for leaf in ("kernel", "bias"):
            one, other = after[name][leaf], of_flat[f"{name}_proj"][leaf]
            np.testing.assert_array_equal(one.reshape(-1), other.reshape(-1))


def test_stacked_layers_are_those_layers() -> None:
    layers = [attention(2, key_heads=1) for _ in range(3)]
    maxima = jnp.asarray([[400.0, 1.0], [1.0, 1.0], [1.0, 900.0]])
    stack = jax.tree.map(lambda *leaves: jnp.stack(leaves), *layers)
    after = clipped({"layers": stack}, {"layers": maxima})["layers"]
    for index, layer in enumerate(layers):
        alone = clipped(layer, maxima[index])
        jax.tree.map(lambda x, y, i=index: np.testing.assert_array_equal(x[i], y), after, alone)


def test_kernels_may_stand_for_themselves() -> None:
    params = {"query": jnp.ones((3, 2, 4)), "key": jnp.ones((3, 2, 4))}
    after = clipped(params, HOT)
    np.testing.assert_allclose(after["key"][0, :, 0], [0.5, 1.0])


def test_behind_a_guard_in_a_chain() -> None:
    tx = gs.guard(optax.chain(optax.adamw(1e-3), gs.clipping.qk_clip()))
    params = attention()
    state = tx.init(params)

    @jax.jit
    def step(params: Any, state: Any, gradients: Any, largest: jax.Array) -> Any:
        updates, state = tx.update(gradients, state, params, max_logits=largest)
        return optax.apply_updates(params, updates), state

    gradients = jax.tree.map(jnp.ones_like, params)
    after, state = step(params, state, gradients, MAXIMA)
    size = jnp.linalg.norm(after["query"]["kernel"][:, 3] / params["query"]["kernel"][:, 3])
    np.testing.assert_allclose(size, 0.1 * np.sqrt(18), rtol=0.05)
    broken = jax.tree.map(lambda leaf: leaf * jnp.nan, gradients)
    rejected, _ = step(after, state, broken, MAXIMA)
    jax.tree.map(np.testing.assert_array_equal, rejected, after)


def test_contract_on_parameters_with_attention() -> None:
    # The registry runs all checks on trees without any; these are those that look at numbers.
    kept = {
        "jit_equals_eager", "one_trace", "sharding", "strict_promotion", "strict_rank",
        "update_dtypes", "survives_any_gradient", "scan", "donation",
    }  # fmt: skip
    gs.testing.assert_contract(
        gs.clipping.qk_clip(),
        params={"attention": {name: attention(2)[name] for name in ("query", "key")}},
        skip=gs.testing.CHECKS.keys() - kept,
        extra_args={"max_logits": HOT},
    )


REFUSED: dict[str, tuple[Any, Any, dict[str, Any], str]] = {
    "no maxima": (attention(), None, {}, r"max_logits has no entry for the attention at \[''\]"),
    "one module missing": (
        MODEL, {"blocks_0/attention": HOT}, {}, r"no entry for .*\['blocks_1/attention'\]"
    ),
    "one array for two": (MODEL, HOT, {}, r"max_logits is one array: there is attention at"),
    "unknown path": (
        MODEL, {"block_0/attention": HOT}, {}, r"max_logits\['block_0/attention'\] belongs to no"
    ),
    "no attention": ({"w": jnp.ones((2, 2))}, HOT, {}, "no attention in params.*query= and key="),
    "other names": (attention(), HOT, {"query": "q_proj"}, "no attention in params.*'q_proj'"),
    "other heads": (
        attention(4), jnp.ones(3), {}, r"params\['query'\]\['kernel'\] has shape \(6, 4, 3\)"
    ),
    "scalar": (attention(4), jnp.ones(()), {}, r"\['kernel'\].*max_logits of shape \(\)"),
    "uneven heads": (attention(4, 3), jnp.ones(4), {}, "has 3 heads, which the 4 .* cannot share"),
    "more key heads": (attention(2, 4), jnp.ones(2), {}, r"\['key'\]\['kernel'\] has 4 heads"),
    "bias": (
        {**attention(2), "key": {"kernel": jnp.ones((6, 2, 3)), "bias": jnp.ones(6)}},
        HOT, {}, r"params\['key'\]\['bias'\] has shape \(6,\)",
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", REFUSED)
def test_what_does_not_fit_is_refused_by_path(what: str) -> None:
    params, max_logits, options, told = REFUSED[what]
    with pytest.raises(ValueError, match=told):
        jax.eval_shape(lambda: clipped(params, max_logits, **options))


def test_missing_maxima_are_the_identity_on_request() -> None:
    params = attention()
    for max_logits in (None, {}, {"elsewhere": HOT}):
        after = clipped(params, max_logits, allow_missing=True)
        jax.tree.map(np.testing.assert_array_equal, after, params)


def test_missing_params_and_wrong_names_are_refused() -> None:
    tx = gs.clipping.qk_clip()
    params = attention()
    with pytest.raises(ValueError, match="qk_clip compares with params and needs them"):
        tx.update(params, tx.init(params), max_logits=MAXIMA)
    with pytest.raises(TypeError, match="key must be a name such as 'query', got 3"):
        gs.clipping.qk_clip(key=3)  # pyright: ignore[reportArgumentType]
