"""Taps inside of every transformation: right numbers, and the gradient of the same bits."""

from collections.abc import Callable
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import gradstable as gs
from tests.oracles import taps as oracle

LAYERS = 3
_rng = np.random.default_rng(0)
X = jnp.asarray(_rng.standard_normal((16, 8)), jnp.float32)
W = jnp.asarray(_rng.standard_normal((LAYERS, 8, 8)) / 3, jnp.float32)


def layer_of(w: jax.Array, h: jax.Array, **kwargs: Any) -> jax.Array:
    return gs.tap("h", jnp.tanh(h @ w), **kwargs)


def activations(ws: jax.Array, x: jax.Array) -> list[jax.Array]:
    found = []
    for w in ws:
        x = jnp.tanh(x @ w)
        found.append(x)
    return found


def alone(w: jax.Array) -> jax.Array:
    return layer_of(w[0], X)


def in_scan(w: jax.Array, body: Callable[..., Any]) -> jax.Array:
    return lax.scan(body, X, (jnp.arange(LAYERS), w))[0]


def with_layers(h: jax.Array, item: Any) -> tuple[jax.Array, None]:
    return layer_of(item[1], h, layer=item[0], layers=LAYERS), None


def through_time(h: jax.Array, item: Any) -> tuple[jax.Array, None]:
    return layer_of(item[1], h), None


def mapped(w: jax.Array, *, check_vma: bool) -> jax.Array:
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    specs = {"in_specs": (P(), P("data")), "out_specs": P("data")}
    return jax.shard_map(layer_of, mesh=mesh, check_vma=check_vma, **specs)(w[0], X)


ONE_CALL = {
    "plain": alone,
    "jit": lambda w: jax.jit(alone)(w),
    "remat": lambda w: jax.checkpoint(alone)(w),
    "vmap": lambda w: jax.vmap(lambda x: layer_of(w[0], x))(X),
    "vmap of vmap": lambda w: jax.vmap(jax.vmap(lambda x: layer_of(w[0], x)))(X[None]),
    "vmap of jit of remat": lambda w: jax.vmap(jax.jit(jax.checkpoint(layer_of)), (None, 0))(
        w[0], X
    ),
    "cond": lambda w: lax.cond(X[0, 0] < 99, alone, lambda w: X @ w[0], w),
    "shard_map": lambda w: mapped(w, check_vma=True),
}
MANY_SLOTS = {
    "scan": lambda w: in_scan(w, with_layers),
    "remat of scan": lambda w: in_scan(w, jax.checkpoint(with_layers)),
    "unrolled scan": lambda w: lax.scan(with_layers, X, (jnp.arange(LAYERS), w), unroll=True)[0],
    "fori_loop": lambda w: lax.fori_loop(
        0, LAYERS, lambda i, h: layer_of(w[i], h, layer=i, layers=LAYERS), X
    ),
    "vmap of scan": lambda w: jax.vmap(
        lambda x: lax.scan(with_layers, x, (jnp.arange(LAYERS), w))[0]
    )(X),
}


def differentiated(apply: Callable[[jax.Array], jax.Array], *, jit: bool = True) -> Any:
    """Return what the tap reads, after a check that it left the gradient alone."""

    def loss_fn(w: jax.Array) -> jax.Array:
        return jnp.sum(apply(w) ** 2)

    with_taps, plain = gs.taps.value_and_grad(loss_fn), jax.value_and_grad(loss_fn)
    if jit:
        with_taps, plain = jax.jit(with_taps), jax.jit(plain)
    result, taps = with_taps(W)
    chex.assert_trees_all_equal(result, plain(W))
    return gs.taps.read(taps)


def agree(found: dict[str, float], *calls: Any) -> None:
    expected = oracle.statistics(*map(np.asarray, calls), saturated_at=1e38)
    del expected["max_abs"], expected["calls"]
    assert {name: found[name] for name in expected} == pytest.approx(expected, rel=2e-5)


@pytest.mark.parametrize(
    ("name", "jit"), [*((name, True) for name in ONE_CALL), ("plain", False), ("vmap", False)]
)
def test_one_call(name: str, jit: bool) -> None:
    found = differentiated(ONE_CALL[name], jit=jit)
    h = activations(W, X)[0]
    for side, values in (("forward", h), ("gradient", 2 * h)):
        agree(found["h"][side], values)
        assert (found["h"][side]["calls"], found["h"][side]["max_factor"]) == (1, 1.0)
        assert found["h"][side]["max_abs"] == pytest.approx(float(jnp.max(jnp.abs(values))))


@pytest.mark.parametrize("name", MANY_SLOTS)
def test_each_layer_has_its_slot(name: str) -> None:
    found = differentiated(MANY_SLOTS[name])
    assert list(found) == ["h/0", "h/1", "h/2"]
    for layer, h in enumerate(activations(W, X)):
        here = found[f"h/{layer}"]["forward"]
        agree(here, h)
        assert (here["calls"], here["max_factor"]) == (1, 1.0)
        assert here["max_abs"] == pytest.approx(float(jnp.max(jnp.abs(h))))


def test_layers_side_by_side_under_vmap() -> None:
    def apply(w: jax.Array) -> jax.Array:
        layers = jnp.arange(LAYERS)
        return jax.vmap(lambda i, w: layer_of(w, X, layer=i, layers=LAYERS))(layers, w)

    found = differentiated(apply)
    for layer in range(LAYERS):
        agree(found[f"h/{layer}"]["forward"], jnp.tanh(X @ W[layer]))


def test_a_scan_over_time_adds_up_and_bounds_the_maximum() -> None:
    found = differentiated(lambda w: in_scan(w, through_time))
    calls = activations(W, X)
    agree(found["h"]["forward"], *calls)
    here, true = found["h"]["forward"], max(float(jnp.max(jnp.abs(h))) for h in calls)
    assert here["calls"] == LAYERS
    assert true <= here["max_abs"] <= true * here["max_factor"]


def runs(w: jax.Array, x: jax.Array) -> Any:
    def loss_fn(w: jax.Array, x: jax.Array) -> jax.Array:
        return jnp.sum(jax.vmap(lambda x: layer_of(w, x))(x) ** 2)

    return gs.taps.value_and_grad(loss_fn)(w, x)


@pytest.mark.parametrize("axes", [(0, None), (None, 0), (0, 0)])
@pytest.mark.parametrize("jit", [False, True], ids=["eager", "jit"])
def test_a_vmap_around_the_call_keeps_runs_apart(axes: tuple[Any, Any], jit: bool) -> None:
    xs = jnp.stack([X, 2 * X, -3 * X])
    given = (W if axes[0] == 0 else W[0], xs if axes[1] == 0 else X)
    _, taps = jax.vmap(jax.jit(runs) if jit else runs, in_axes=axes)(*given)
    for run in range(3):
        w, x = (one if axis is None else one[run] for one, axis in zip(given, axes, strict=True))
        found = gs.taps.read(jax.tree.map(lambda sums, run=run: sums[run], taps))["h"]["forward"]
        agree(found, jnp.tanh(x @ w))
        assert found["calls"] == 1


def test_runs_in_runs_are_kept_apart() -> None:
    xs = jnp.stack([X, 2 * X])
    _, taps = jax.vmap(jax.vmap(runs, in_axes=(None, 0)), in_axes=(0, None))(W, xs)
    found = gs.taps.read(jax.tree.map(lambda sums: sums[2, 1], taps))["h"]["forward"]
    agree(found, jnp.tanh(xs[1] @ W[2]))


def test_a_vmap_that_the_arguments_do_not_show_is_refused() -> None:
    def of(x: jax.Array) -> Any:
        return gs.taps.value_and_grad(lambda w: jnp.sum(layer_of(w, x) ** 2))(W[0])

    with pytest.raises(ValueError, match="pass it to the loss as an argument"):
        jax.vmap(of)(jnp.stack([X, 2 * X]))


def test_a_branch_that_is_not_taken_leaves_nothing() -> None:
    found = differentiated(lambda w: lax.cond(X[0, 0] > 99, alone, lambda w: X @ w[0], w))
    assert found["h"]["forward"]["calls"] == 0


def test_without_its_check_shard_map_has_a_call_on_each_device() -> None:
    found = differentiated(lambda w: mapped(w, check_vma=False))
    here, h = found["h"]["forward"], activations(W, X)[0]
    agree(here, h)
    true = float(jnp.max(jnp.abs(h)))
    assert here["calls"] == 8
    assert true <= here["max_abs"] <= true * here["max_factor"] < true * 1.2


def test_a_tapped_call_inside_of_shard_map_measures_all_devices() -> None:
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))

    def step_fn(w: jax.Array, x: jax.Array, when: jax.Array) -> Any:
        grads_of = gs.taps.value_and_grad(lambda w: jnp.sum(layer_of(w, x)), when=when)
        (value, grad), taps = grads_of(w)
        return lax.psum(value, "data"), grad, taps

    mapped_fn = jax.jit(
        jax.shard_map(step_fn, mesh=mesh, in_specs=(P(), P("data"), P()), out_specs=P())
    )
    for when in (True, False):
        taps = mapped_fn(W[0], X, jnp.asarray(when))[2]
        found = gs.taps.read(taps)["h"]["forward"]
        assert found["calls"] == when
    agree(
        gs.taps.read(mapped_fn(W[0], X, jnp.asarray(True))[2])["h"]["forward"], jnp.tanh(X @ W[0])
    )


def test_without_its_check_the_taps_of_devices_can_be_added() -> None:
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))

    def step_fn(w: jax.Array, x: jax.Array) -> Any:
        _, taps = gs.taps.value_and_grad(lambda w: jnp.sum(layer_of(w, x)))(w)
        return lax.psum(taps, "data")

    specs: Any = {"in_specs": (P(), P("data")), "out_specs": P(), "check_vma": False}
    taps = jax.jit(jax.shard_map(step_fn, mesh=mesh, **specs))(W[0], X)
    here, h = gs.taps.read(taps)["h"]["forward"], jnp.tanh(X @ W[0])
    agree(here, h)
    true = float(jnp.max(jnp.abs(h)))
    assert true <= here["max_abs"] <= true * here["max_factor"]


@pytest.mark.parametrize("kind", [AxisType.Auto, AxisType.Explicit])
def test_sharded_arrays_under_jit(kind: AxisType) -> None:
    mesh = jax.make_mesh((8,), ("data",), axis_types=(kind,))
    with jax.set_mesh(mesh):
        x = jax.device_put(X, NamedSharding(mesh, P("data")))
        grads_of = gs.taps.value_and_grad(lambda w, x: jnp.sum(layer_of(w, x) ** 2))
        _, taps = jax.jit(grads_of)(W[0], x)
    found = gs.taps.read(taps)["h"]["forward"]
    agree(found, activations(W, X)[0])
    assert found["max_factor"] == 1.0


def test_a_gradient_penalty_is_seen_from_outside() -> None:
    def penalty(w: jax.Array) -> jax.Array:
        slope = jax.grad(lambda x: jnp.sum(layer_of(w, x) ** 2))(X)
        return jnp.sum(slope**2)

    result, taps = jax.jit(gs.taps.value_and_grad(penalty))(W[0])
    chex.assert_trees_all_equal(result, jax.jit(jax.value_and_grad(penalty))(W[0]))
    found = gs.taps.read(taps)["h"]
    agree(found["forward"], jnp.tanh(X @ W[0]))

    # The gradient is that of the penalty, by an addition to the activation.
    def of(extra: jax.Array) -> jax.Array:
        slope = jax.grad(lambda x: jnp.sum((jnp.tanh(x @ W[0]) + extra) ** 2))(X)
        return jnp.sum(slope**2)

    agree(found["gradient"], jax.grad(of)(jnp.zeros_like(X)))


def test_a_tapped_call_can_be_differentiated() -> None:
    def slope(w: jax.Array, grads_of: Callable[..., Any]) -> jax.Array:
        return jnp.sum(grads_of(w) ** 2)

    def loss_fn(w: jax.Array) -> jax.Array:
        return jnp.sum(layer_of(w, X) ** 2)

    ours = jax.jit(jax.grad(slope), static_argnums=1)(
        W[0], lambda w: gs.taps.value_and_grad(loss_fn)(w)[0][1]
    )
    theirs = jax.jit(jax.grad(slope), static_argnums=1)(W[0], jax.grad(loss_fn))
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)


def test_micro_batches_in_a_scan() -> None:
    grads_of = gs.taps.value_and_grad(lambda w, x: jnp.mean(layer_of(w, x) ** 2))
    shapes = gs.taps.shapes(lambda w, x: jnp.mean(layer_of(w, x) ** 2), W[0], X[:4])

    @jax.jit
    def accumulate(w: jax.Array) -> Any:
        def body(sums: Any, x: jax.Array) -> Any:
            return gs.taps.merge(sums, grads_of(w, x)[1]), None

        empty = jax.tree.map(lambda one: jnp.zeros(one.shape, one.dtype), shapes)
        return lax.scan(body, empty, X.reshape(4, 4, 8))[0]

    found = gs.taps.read(accumulate(W[0]))["h"]["forward"]
    h = jnp.tanh(X @ W[0])
    agree(found, h)
    assert (found["calls"], found["max_factor"]) == (4, 1.0)
    assert found["max_abs"] == pytest.approx(float(jnp.max(jnp.abs(h))))


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_low_precision_passes_bit_for_bit(dtype: Any) -> None:
    w, x = W[0].astype(dtype), X.astype(dtype)

    def loss_fn(w: jax.Array) -> jax.Array:
        return jnp.sum(layer_of(w, x).astype(jnp.float32) ** 2)

    result, taps = gs.taps.value_and_grad(loss_fn)(w)
    chex.assert_trees_all_equal(result, jax.value_and_grad(loss_fn)(w))
    agree(gs.taps.read(taps)["h"]["forward"], np.asarray(jnp.tanh(x @ w), np.float64))
