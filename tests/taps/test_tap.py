"""What a tap is outside of a tapped call, its switch, and the mistakes that it names."""

from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradstable as gs


def model(w: jax.Array, x: jax.Array) -> jax.Array:
    return jnp.sum(gs.tap("h", jnp.tanh(x @ w)) ** 2)


@pytest.fixture
def w(rng: np.random.Generator) -> jax.Array:
    return jnp.asarray(rng.standard_normal((4, 4)), jnp.float32)


@pytest.fixture
def x(rng: np.random.Generator) -> jax.Array:
    return jnp.asarray(rng.standard_normal((6, 4)), jnp.float32)


def test_outside_of_a_tapped_call_it_is_its_argument() -> None:
    x = jnp.ones(3)
    assert gs.tap("h", x) is x
    assert gs.taps.attention_logits("a", jnp.ones((1, 1, 1))).shape == (1, 1, 1)
    assert not jax.make_jaxpr(lambda x: gs.tap("h", x))(x).eqns
    host = np.ones(3, np.float32)
    assert gs.tap("h", host) is host


def test_mirrors_value_and_grad(w: jax.Array, x: jax.Array) -> None:
    def loss_fn(w: jax.Array, x: jax.Array, *, power: int) -> Any:
        h = gs.tap("h", x @ w)
        return jnp.sum(h**power), {"kept": h, "text": "not an array"}

    kwargs: dict[str, Any] = {"has_aux": True}
    for argnums in (0, (0, 1), (1,), -1):
        ours = gs.taps.value_and_grad(loss_fn, argnums=argnums, **kwargs)(w, x, power=2)[0]
        theirs = jax.value_and_grad(loss_fn, argnums=argnums, **kwargs)(w, x, power=2)
        assert ours[0][1].pop("text") == theirs[0][1].pop("text")
        chex.assert_trees_all_equal(ours, theirs)


def test_measures_every_kth_step_without_recompiling(w: jax.Array, x: jax.Array) -> None:
    @jax.jit
    @chex.assert_max_traces(1)
    def step_fn(w: jax.Array, step: jax.Array) -> Any:
        return gs.taps.value_and_grad(model, when=step % 3 == 0)(w, x)

    whole = jax.jit(jax.value_and_grad(model))(w, x)
    calls = []
    for step in range(7):
        result, taps = step_fn(w, jnp.int32(step))
        chex.assert_trees_all_equal(result, whole)
        calls.append(gs.taps.read(taps)["h"]["gradient"]["calls"])
    assert calls == [1, 0, 0, 1, 0, 0, 1]


def test_off_for_good_leaves_zeros(w: jax.Array, x: jax.Array) -> None:
    _, taps = gs.taps.value_and_grad(model, when=False)(w, x)
    chex.assert_trees_all_equal(taps, jax.tree.map(jnp.zeros_like, taps))


def test_structure_is_that_of_shapes_and_taps_can_be_donated(w: jax.Array, x: jax.Array) -> None:
    def step_fn(w: jax.Array, sums: Any) -> Any:
        (_, grad), taps = gs.taps.value_and_grad(model)(w, x)
        return w - 0.1 * grad, gs.taps.merge(sums, taps)

    shapes = gs.taps.shapes(model, w, jax.ShapeDtypeStruct(x.shape, x.dtype))
    sums = jax.tree.map(lambda one: jnp.zeros(one.shape, one.dtype), shapes)
    jitted = jax.jit(step_fn, donate_argnums=(0, 1))
    w = w + 0
    for _ in range(3):
        w, sums = jitted(w, sums)
    assert gs.taps.read(sums)["h"]["forward"]["calls"] == 3


def test_arguments_that_are_not_differentiated_may_steer_the_loss(x: jax.Array) -> None:
    def loss_fn(scale: jax.Array, x: jax.Array, *, layers: np.ndarray, train: bool) -> jax.Array:
        for layer in range(int(layers)):
            x = gs.tap(f"layer_{layer}", jnp.tanh(scale * x))
        return jnp.sum(gs.tap("scale", scale) * x) if train else jnp.sum(x)

    arguments: Any = {"layers": np.array(2), "train": True}
    _, taps = gs.taps.value_and_grad(loss_fn)(2.0, x, **arguments)
    assert list(taps) == ["layer_0", "layer_1", "scale"]
    types = jax.ShapeDtypeStruct((), jnp.float32), jax.ShapeDtypeStruct(x.shape, x.dtype)
    assert list(gs.taps.shapes(loss_fn, *types, **arguments)) == list(taps)

    def by_name(w: jax.Array, *, x: jax.Array) -> jax.Array:
        return jnp.sum(gs.tap("h", w * x))

    assert list(gs.taps.shapes(by_name, 1.0, x=types[1])) == ["h"]


def test_a_loss_without_taps_has_none(w: jax.Array) -> None:
    (value, _), taps = gs.taps.value_and_grad(lambda w: jnp.sum(w**2))(w)
    assert taps == {} == gs.taps.read(taps)
    assert value == jnp.sum(w**2)


def test_what_the_loss_does_not_depend_on_is_not_reached(w: jax.Array, x: jax.Array) -> None:
    def loss_fn(w: jax.Array) -> jax.Array:
        gs.tap("unused", x @ w)
        cut = jax.lax.stop_gradient(gs.tap("cut", w))
        return jnp.sum(w * cut) + 0.0 * jnp.sum(gs.tap("zero", w))

    found = gs.taps.read(jax.jit(gs.taps.value_and_grad(loss_fn))(w)[1])
    assert found["unused"]["forward"]["calls"] == found["cut"]["forward"]["calls"] == 0
    assert found["zero"]["forward"]["max_abs"] == jnp.max(jnp.abs(w))
    assert found["zero"]["gradient"]["zeros"] == 1.0


def test_values_of_frozen_parameters_leave_statistics(w: jax.Array, x: jax.Array) -> None:
    frozen = w * 1.0
    _, taps = gs.taps.value_and_grad(lambda a: jnp.sum(gs.tap("h", x @ frozen) * a))(jnp.ones(4))
    assert gs.taps.read(taps)["h"]["gradient"]["rms"] == 1.0


def test_one_name_twice_is_one_slot(x: jax.Array) -> None:
    def loss_fn(s: jax.Array) -> jax.Array:
        return jnp.sum(gs.tap("h", s * x)) + jnp.sum(gs.tap("h", 3 * s * x))

    found = gs.taps.read(jax.jit(gs.taps.value_and_grad(loss_fn))(1.0)[1])["h"]["forward"]
    largest = 3 * float(jnp.max(jnp.abs(x)))
    assert found["calls"] == 2
    assert largest <= found["max_abs"] <= largest * found["max_factor"]
    assert found["max_factor"] == pytest.approx(2 ** (1 / 24), rel=1e-4)


def test_no_tracer_leaks(w: jax.Array, x: jax.Array) -> None:
    with jax.checking_leaks():
        _, taps = jax.jit(gs.taps.value_and_grad(model))(w, x)
    assert gs.taps.read(taps)["h"]["forward"]["calls"] == 1


def test_a_jitted_function_is_traced_again_with_the_probes_of_each_call(
    w: jax.Array, x: jax.Array
) -> None:
    inner = jax.jit(lambda w: gs.tap("h", x @ w))
    before = inner(w)  # in the caches of JAX without taps
    for _ in range(2):
        grads_of = jax.jit(gs.taps.value_and_grad(lambda w: jnp.sum(inner(w))))
        assert gs.taps.read(grads_of(w)[1])["h"]["forward"]["calls"] == 1
    np.testing.assert_array_equal(inner(w), before)


@pytest.mark.parametrize(
    ("bad", "hint"),
    [
        (jnp.ones(3, jnp.int32), "'ids' takes a floating-point array, got an array of int32"),
        (jnp.ones(3, jnp.complex64), "its real and its imaginary part"),
        (jnp.ones(3, bool), "got an array of bool"),
        ({"a": jnp.ones(3)}, "got dict: tap each leaf"),
        (1.0, "got float"),
    ],
)
def test_other_arrays_are_refused_by_name(bad: Any, hint: str) -> None:
    with pytest.raises(TypeError, match=hint):
        gs.tap("ids", bad)


def test_mistakes_name_the_tap() -> None:
    x = jnp.ones(3)
    with pytest.raises(TypeError, match="name must be a name"):
        gs.tap(x, x)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="layer needs layers: pass both to the tap 'h'"):
        gs.tap("h", x, layer=1)
    with pytest.raises(ValueError, match="layers needs layer"):
        gs.tap("h", x, layers=1)
    with pytest.raises(ValueError, match="layer must be"):
        gs.tap("h", x, layer=3, layers=3)
    with pytest.raises(TypeError, match="layer must be an integer in the tap 'h'"):
        gs.tap("h", x, layer=1.0, layers=3)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="saturated_at"):
        gs.tap("h", x, saturated_at=0.0)
    with pytest.raises(ValueError, match=r"\(\.\.\., heads, q, k\), got \(3,\) in the tap 'a'"):
        gs.taps.attention_logits("a", x)
    with pytest.raises(TypeError, match="when must be a bool"):
        gs.taps.value_and_grad(jnp.sum, when=50)
    with pytest.raises(TypeError, match="when must be a bool"):
        gs.taps.value_and_grad(jnp.sum, when=jnp.ones(2, bool))
    with pytest.raises(TypeError, match="loss_fn must be a function"):
        gs.taps.value_and_grad(x)  # pyright: ignore[reportArgumentType]


def test_one_name_for_different_taps_is_refused(x: jax.Array) -> None:
    def loss_fn(s: jax.Array) -> jax.Array:
        return jnp.sum(gs.tap("h", s * x)) + jnp.sum(gs.tap("h", s * x, layer=0, layers=2))

    with pytest.raises(ValueError, match="two taps are named 'h' but have different layers"):
        gs.taps.value_and_grad(loss_fn)(1.0)


def test_taps_around_a_custom_derivative_but_not_inside(x: jax.Array) -> None:
    double = jax.custom_vjp(lambda x: 2 * x)
    double.defvjp(lambda x: (2 * x, None), lambda _, g: (2 * g,))

    def around(s: jax.Array) -> jax.Array:
        return jnp.sum(gs.tap("out", double(gs.tap("in", s * x))))

    found = gs.taps.read(jax.jit(gs.taps.value_and_grad(around))(1.0)[1])
    assert (found["in"]["gradient"]["rms"], found["out"]["gradient"]["rms"]) == (2.0, 1.0)

    inside = jax.custom_jvp(lambda x: gs.tap("h", 2 * x))
    inside.defjvp(lambda p, t: (inside(*p), 2 * t[0]))
    with pytest.raises(jax.errors.UnexpectedTracerError):
        jax.jit(gs.taps.value_and_grad(lambda s: jnp.sum(inside(s * x))))(1.0)
