"""Programs that break as real ones do: the operation, the line, the pass and the examples."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradstable as gs

X = jnp.asarray(np.random.default_rng(0).normal(size=(6, 4)), jnp.float32)
W = {"w": jnp.full((4, 4), 0.25), "b": jnp.zeros(4)}
ZERO_ROW = X.at[3].set(0.0)


def masked_log(p: Any, x: jax.Array) -> jax.Array:
    probs = (x @ p["w"]) ** 2
    return jnp.sum(jnp.where(probs > 0, jnp.log(probs), 0.0))  # here


def softmax_by_hand(p: Any, x: jax.Array) -> jax.Array:
    scores = (x @ p["w"]).astype(jnp.float16)
    weights = jnp.exp(scores)  # here
    return jnp.mean((weights / weights.sum(-1, keepdims=True))[:, 0].astype(jnp.float32))


def custom_norm(p: Any, x: jax.Array) -> jax.Array:
    h = x @ p["w"]
    return jnp.sum(h / jnp.sqrt(jnp.sum(h**2, axis=-1, keepdims=True)))  # here


def distance(p: Any, x: jax.Array) -> jax.Array:
    h = x @ p["w"]
    return jnp.sum(jnp.sqrt(jnp.sum(h**2, axis=-1)))  # here


def library_norm(p: Any, x: jax.Array) -> jax.Array:
    return jnp.sum(jnp.linalg.norm(x @ p["w"], axis=-1))  # here


def angle(p: Any, x: jax.Array) -> jax.Array:
    cosine = jnp.clip(x @ p["w"], -1.0, 1.0) * 1.0001
    return jnp.mean(jnp.arccos(cosine))  # here


def scan_of_layers(p: Any, x: jax.Array) -> jax.Array:
    def layer(h: jax.Array, scale: jax.Array) -> tuple[jax.Array, None]:
        return jnp.exp(scale * (h @ p["w"])), None  # here

    h, _ = jax.lax.scan(layer, jnp.abs(x), jnp.array([0.1, 0.1, 100.0, 0.1]))
    return jnp.mean(h)


def remat_in_jit(p: Any, x: jax.Array) -> jax.Array:
    @jax.checkpoint
    def block(h: jax.Array) -> jax.Array:
        return jnp.log1p(h - 5.0)  # here

    return jnp.mean(jax.jit(block)(x @ p["w"]))


def loop(p: Any, x: jax.Array) -> jax.Array:
    def body(carry: Any) -> Any:
        step, h = carry
        return step + 1, h * 1e10  # here

    _, h = jax.lax.while_loop(lambda carry: carry[0] < 5, body, (0, jax.lax.stop_gradient(x)))
    return jnp.mean(h @ p["w"])


def branch(p: Any, x: jax.Array) -> jax.Array:
    h = x @ p["w"]
    return jnp.mean(jax.lax.cond(h.sum() < 1e9, lambda h: 1.0 / (h - h), jnp.sin, h))  # here


@jax.custom_vjp
def own(x: jax.Array) -> jax.Array:
    return x


def own_forward(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    return x, x


def own_backward(x: jax.Array, g: jax.Array) -> tuple[jax.Array]:
    return (g / (x - x),)


own.defvjp(own_forward, own_backward)


def own_derivative(p: Any, x: jax.Array) -> jax.Array:
    return jnp.mean(own(x @ p["w"]))  # here


def all_masked(p: Any, x: jax.Array) -> jax.Array:
    scores = jnp.where((jnp.arange(6) == 2)[:, None], -jnp.inf, x @ p["w"])
    return jnp.sum(jax.nn.softmax(scores, axis=-1)[:, 0])  # here


def variance(p: Any, x: jax.Array) -> jax.Array:
    h = (x * 0.0 + 1.0) @ p["w"]
    return jnp.mean(h / jnp.std(h, axis=0))  # here


def power(p: Any, x: jax.Array) -> jax.Array:
    return jnp.mean((x @ p["w"]) ** 1.5)  # here


def squares(p: Any, x: jax.Array) -> jax.Array:
    h = (300.0 * (x @ p["w"])).astype(jnp.float16)
    return jnp.sum(h * h).astype(jnp.float32)  # here


def cross_entropy(p: Any, x: jax.Array) -> jax.Array:
    probs = jax.nn.softmax(1e4 * (x @ p["w"] * jnp.arange(4.0)))
    return -jnp.mean(jnp.log(probs[:, 0]))  # here


class Case(NamedTuple):
    loss: Callable[..., jax.Array]
    x: jax.Array
    operation: str
    backward: bool
    examples: tuple[int, ...] | None = None  # None: not checked
    iterations: tuple[int, ...] = ()


CASES = (
    Case(masked_log, ZERO_ROW, "div", backward=True),
    Case(softmax_by_hand, X.at[2].set(60.0), "exp", backward=False, examples=(2,)),
    Case(custom_norm, ZERO_ROW, "div", backward=False, examples=(3,)),
    Case(distance, ZERO_ROW, "div", backward=True, examples=(3,)),
    Case(library_norm, ZERO_ROW, "div", backward=True, examples=(3,)),
    Case(angle, (0.1 * X).at[1].set(9.0), "acos", backward=False, examples=(1,)),
    Case(scan_of_layers, X, "exp", backward=False, iterations=(2,)),
    Case(remat_in_jit, X, "log1p", backward=False),
    Case(loop, jnp.abs(X) + 1.0, "mul", backward=False, iterations=(3,)),
    Case(branch, X, "div", backward=False),
    Case(own_derivative, X, "div", backward=True),
    Case(all_masked, X, "sub", backward=False, examples=(2,)),
    Case(variance, X, "div", backward=False),
    Case(power, X.at[1].set(-1.0).at[4].set(1.0), "pow", backward=False),
    Case(squares, (0.1 * X).at[5].set(40.0), "mul", backward=False, examples=(5,)),
    Case(cross_entropy, X, "log", backward=False),
)


@functools.cache
def examined(name: str) -> gs.Autopsy:
    (case,) = (case for case in CASES if case.loss.__name__ == name)
    return gs.autopsy(case.loss, W, case.x)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.loss.__name__)
def test_operation_and_line_are_found(case: Case) -> None:
    found = examined(case.loss.__name__)
    assert found.cause is not None
    assert found.cause.code.endswith("# here"), found
    assert found.cause.file == __file__
    assert found.cause.operation == case.operation
    assert found.cause.backward == case.backward
    assert found.cause.iterations == case.iterations
    if case.examples is not None:
        assert found.cause.examples == case.examples
    assert "NaN" in found.cause.output or "infinite" in found.cause.output
    assert not any("NaN" in one for one in found.cause.inputs)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.loss.__name__)
def test_it_sees_what_jit_sees(case: Case) -> None:
    loss, gradients = jax.jit(jax.value_and_grad(case.loss))(W, case.x)
    found = examined(case.loss.__name__)
    assert np.isfinite(found.loss) == bool(jnp.isfinite(loss))
    bad = {f"['{name}']" for name, leaf in gradients.items() if not jnp.isfinite(leaf).all()}
    assert set(found.broken) == bad


def double_where(p: Any, x: jax.Array) -> jax.Array:
    probs = jax.nn.relu(x @ p["w"])
    safe = jnp.where(probs > 0, probs, 1.0)
    return jnp.sum(jnp.where(probs > 0, jnp.log(safe), 0.0))


def causal_mask(p: Any, x: jax.Array) -> jax.Array:
    scores = jnp.where(jnp.tril(jnp.ones((6, 6), bool)), x @ p["w"] @ x.T, -jnp.inf)
    return jnp.mean(jax.nn.softmax(scores) @ x)


def largest_so_far(p: Any, x: jax.Array) -> jax.Array:
    def body(best: jax.Array, row: jax.Array) -> tuple[jax.Array, None]:
        return jnp.maximum(best, row @ p["b"]), None

    return jax.lax.scan(body, jnp.asarray(-jnp.inf), x)[0]


def dropped(p: Any, x: jax.Array) -> jax.Array:
    broken = jax.lax.stop_gradient(jnp.log(x - x))
    return jnp.mean(x @ p["w"]) + jnp.where(broken > 0, broken, 0.0).sum()


@pytest.mark.parametrize("loss", [double_where, causal_mask, largest_so_far, dropped])
def test_what_is_legal_is_not_blamed(loss: Any) -> None:
    found = gs.autopsy(loss, W, ZERO_ROW)
    assert found.cause is None
    assert found.broken == ()
    assert "are finite" in str(found)


def test_pitfall_a_library_function_that_was_traced_on_another_line() -> None:
    """JAX traces it once, so that what is inside of it knows the first line only."""

    def loss(p: Any, x: jax.Array) -> jax.Array:
        sound = jnp.linalg.norm((x + 10.0) @ p["w"], axis=-1)
        return jnp.sum(sound) + jnp.sum(jnp.linalg.norm(x @ p["w"], axis=-1))  # here

    gs.autopsy(library_norm, W, X)
    found = gs.autopsy(loss, W, ZERO_ROW)
    assert found.cause is not None
    assert found.cause.code.endswith("# here")
    assert found.cause.function == "loss"


@jax.jit
def shared(x: jax.Array) -> jax.Array:
    return jnp.log(x)  # here


def test_a_function_of_the_user_that_was_traced_on_another_line() -> None:
    def loss(p: Any, x: jax.Array) -> jax.Array:
        return jnp.mean(shared(jnp.abs(x @ p["w"]) + 1.0)) + jnp.mean(shared(x @ p["w"]))

    found = gs.autopsy(loss, W, -jnp.abs(X))
    assert found.cause is not None
    assert found.cause.code.endswith("# here")
    assert found.cause.function == "shared"
