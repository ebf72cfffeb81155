"""Moments in few bits follow float32, never become zero, and stay what they are if rejected."""

import re
from functools import cache, partial
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradstable as gs
from benchmarks.dynamic_map import published_8_bit
from gradstable._src.precision.storage import unpack
from gradstable.precision import CompressMomentsState
from tests.rejection import assert_rejected_step_changes_no_bit

SIZE = 1024
ADAM = gs.moments.scale_by_adam
compressed = partial(gs.precision.compress_moments, min_size=1)
TO = pytest.mark.parametrize("to", ["int8", "int16", "bfloat16"])


def run(tx: optax.GradientTransformation, gradients: Any) -> tuple[Any, Any, Any]:
    """Return the last update and state, and the largest update of each step."""

    def step(carry: Any, g: jax.Array) -> Any:
        updates, state = tx.update(g, carry[1])
        return (updates, state), jnp.max(jnp.abs(updates))

    def whole(gradients: jax.Array) -> Any:
        start = jnp.zeros_like(gradients[0]), tx.init(gradients[0])
        return jax.lax.scan(step, start, gradients)

    (updates, state), largest = jax.jit(whole)(gradients)
    return updates, state, largest


def unpacked_nu(state: CompressMomentsState, to: Any) -> np.ndarray:
    return np.asarray(
        unpack(to, False, state.inner_state.nu, state.block_scales[1].unnamed), np.float64
    )


def falling(steps: int) -> jax.Array:
    """Gradients that scatter by 1 at first, and by a hundredth after a tenth of the steps."""
    level = jnp.where(jnp.arange(steps) < steps // 10, 1.0, 0.01)
    return level[:, None] * jax.random.normal(jax.random.key(0), (steps, SIZE))


@cache
def reference_nu() -> np.ndarray:
    return np.asarray(run(ADAM(), falling(2500))[1].nu)


def test_pitfall_plain_bfloat16_second_moment_never_falls() -> None:
    _, plain, _ = run(ADAM(nu_dtype=jnp.bfloat16), falling(2500))
    assert float(plain.nu.astype(jnp.float32).mean()) > 5 * reference_nu().mean()


@TO
def test_second_moment_falls_as_in_float32(to: Any) -> None:
    _, ours, _ = run(compressed(ADAM(), to=to), falling(2500))
    ratio = unpacked_nu(ours, to) / reference_nu()
    # 1024 entries that scatter by up to a quarter: a deviation of their mean of 0.8 percent.
    assert ratio.mean() == pytest.approx(1.0, abs=0.03)
    assert ratio.std() < {"int8": 0.25, "int16": 0.01, "bfloat16": 0.15}[to]


@TO
def test_small_gradients_do_not_underflow(to: Any) -> None:
    """Pitfall: the square of 1e-15 is below all that float16 has."""
    gradients = 1e-15 * jax.random.normal(jax.random.key(1), (50, SIZE))
    ours, _, _ = run(compressed(ADAM(eps=0.0), to=to), gradients)
    theirs, _, _ = run(ADAM(eps=0.0), gradients)
    assert np.corrcoef(ours, theirs)[0, 1] > 0.98


def adversarial(steps: int) -> jax.Array:
    """Gradients of very different sizes in a block, and a spike."""
    scale = 10.0 ** -jnp.linspace(0.0, 12.0, SIZE).at[::256].set(-6.0)
    noise = jax.random.normal(jax.random.key(2), (steps, SIZE))
    return (noise * scale).at[steps // 2].multiply(1e4)


@TO
def test_update_stays_bounded_beside_huge_neighbors(to: Any) -> None:
    _, _, largest = run(compressed(ADAM(eps=0.0), to=to), adversarial(300))
    # The bound of Adam is 7.27; steps of an eighth in mu and of a sixteenth in the root may add.
    assert float(largest.max()) < 7.27 * 1.125 * 1.0625


def test_pitfall_second_moment_of_zero_explodes() -> None:
    """The published numbers have a zero in nu where mu has none, and an eps to live with it."""
    _, _, largest = run(
        published_8_bit(optax.scale_by_adam(eps=1e-12), min_size=1), adversarial(300)
    )
    assert float(largest.max()) > 1e3


def test_rejected_step_changes_no_bit() -> None:
    assert_rejected_step_changes_no_bit(gs.guard(compressed(optax.adamw(1e-3))), SIZE)


def test_rejection_inside_keeps_every_code() -> None:
    """With the guard inside, a rejected step packs again what it unpacked."""
    tx = compressed(gs.guard(ADAM()))
    _, state, _ = run(tx, jax.random.normal(jax.random.key(3), (20, SIZE)))
    _, new = jax.jit(tx.update)(jnp.full(SIZE, jnp.nan), state)
    assert int(gs.health(new).rejected) == 1
    chex.assert_trees_all_equal(new.block_scales, state.block_scales)
    chex.assert_trees_all_equal(new.inner_state.inner_state, state.inner_state.inner_state)


def test_same_key_same_run_and_other_key_other_run() -> None:
    tx = compressed(ADAM())
    update = jax.jit(tx.update)
    first, other = tx.init(jnp.ones(SIZE)), compressed(ADAM(), key=1).init(jnp.ones(SIZE))
    gradient = jnp.cos(jnp.arange(SIZE) * 1.0)
    one, two, three = (update(gradient, state)[1] for state in (first, first, other))
    chex.assert_trees_all_equal(one, two)
    assert not jnp.array_equal(one.inner_state.mu, three.inner_state.mu)
    assert not jnp.array_equal(one.rounding_key, first.rounding_key)


def test_entry_that_overflows_inside_keeps_what_it_was() -> None:
    """Alone around optax's Adam, whose nu a gradient of 1e20 makes infinite."""
    tx = compressed(optax.scale_by_adam())
    update = jax.jit(tx.update)
    _, state = update(jnp.ones(SIZE), tx.init(jnp.ones(SIZE)))
    _, state = update(jnp.ones(SIZE).at[5].set(1e20), state)
    after = unpacked_nu(state, "int8")
    assert np.isfinite(after).all()
    # Its neighbors have gone on to 1.999e-3; the scale of the block is theirs.
    assert after[5] == pytest.approx(1e-3, rel=1 / 8)
    assert after[4] == pytest.approx(1.999e-3, rel=1e-5)


@pytest.mark.parametrize("to", ["int8", "int16"])
def test_pitfall_compiler_does_not_compute_the_first_blocks(to: Any) -> None:
    """XLA took 47 s to reduce the zeros of a leaf of 4096 x 4096 while it compiled ``init``."""
    init = gs.precision.compress_moments(optax.adam(1e-3), to=to).init
    compiled = jax.jit(init).lower(jax.ShapeDtypeStruct((64, 64), jnp.float32)).compile()
    assert " reduce(" in compiled.as_text()


@pytest.mark.parametrize(("to", "most"), [("int8", 2.032), ("int16", 4.032), ("bfloat16", 4.001)])
def test_bytes_of_state(to: Any, most: float) -> None:
    state = jax.eval_shape(
        gs.precision.compress_moments(optax.adam(1e-3), to=to).init, jnp.ones((512, 512))
    )
    bytes_of = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(state))
    assert bytes_of / 512**2 <= most


def test_what_is_small_complex_or_of_another_kind_is_left_alone() -> None:
    params = {
        "large": jnp.ones(5000, jnp.bfloat16),
        "small": jnp.ones(4095, jnp.bfloat16),
        "complex": jnp.ones(5000, jnp.complex64),
    }
    state = jax.eval_shape(gs.precision.compress_moments(optax.adam(1e-3)).init, params)
    mu, nu = (jax.tree.map(lambda leaf: leaf.dtype.name, state.inner_state[0][i]) for i in (1, 2))
    assert mu == {"large": "int8", "small": "float32", "complex": "complex64"}
    assert nu["large"] == "uint8"
    assert nu["small"] == "float32"


class Params(NamedTuple):
    """Parameters with the names of moments."""

    mu: jax.Array
    nu: jax.Array


def test_parameters_with_the_names_of_moments_are_left_alone() -> None:
    params = Params(jnp.full(SIZE, 0.3), jnp.full(SIZE, 0.7))
    tx = compressed(optax.MultiSteps(optax.adam(1e-3), 2).gradient_transformation())
    _, state = jax.jit(tx.update)(params, tx.init(params), params)
    chex.assert_trees_all_equal(state.inner_state.acc_grads, params)
    assert state.inner_state.inner_opt_state[0].mu.nu.dtype == jnp.int8


FOUND = {
    "adadelta": (optax.adadelta(1.0), {"e_g": "uint8", "e_x": "uint8"}),
    "adagrad": (optax.adagrad(1.0), {"sum_of_squares": "uint8"}),
    "ademamix": (gs.moments.scale_by_ademamix(), {"mu": "int8", "mu_slow": "int8", "nu": "uint8"}),
    "amsgrad": (optax.amsgrad(1.0), {"mu": "int8", "nu": "uint8", "nu_max": "float32"}),
    "inject": (optax.inject_hyperparams(optax.adamw)(1.0), {"mu": "int8", "nu": "uint8"}),
    "lion": (optax.lion(1.0), {"mu": "int8"}),
    "masked": (optax.masked(optax.adam(1.0), {"w": True}), {"mu": "int8", "nu": "uint8"}),
    "muon": (gs.moments.scale_by_muon(), {"mu": "int8"}),
    "rmsprop": (optax.rmsprop(1.0, momentum=0.9), {"nu": "uint8", "trace": "int8"}),
}


@pytest.mark.parametrize("name", FOUND)
def test_moments_are_found_in_the_states_of_others(name: str) -> None:
    inner, expected = FOUND[name]
    tx = gs.precision.compress_moments(inner)
    params = {"w": jnp.ones((64, 64))}

    def one(params: Any) -> Any:
        return tx.update(params, tx.init(params), params)[1]

    flat, _ = jax.tree_util.tree_flatten_with_path(jax.eval_shape(one, params).inner_state)
    paths = [(jax.tree_util.keystr(path), leaf) for path, leaf in flat if leaf.ndim]
    found = {re.findall(r"\.(\w+)\['w'\]", path)[-1]: leaf.dtype.name for path, leaf in paths}
    assert found == expected


@pytest.mark.parametrize("what", ["sm3", "sophia"])
def test_pitfall_nu_that_may_be_negative_is_left_alone(what: str) -> None:
    inner = optax.scale_by_sm3() if what == "sm3" else optax.contrib.sophia(1.0)
    with pytest.raises(ValueError, match="no state with a field"):
        gs.precision.compress_moments(inner).init(jnp.ones(SIZE))


MISTAKES = {
    "nothing to compress": ({"inner": optax.sgd(0.1)}, ValueError, r"signed= and nonnegative="),
    "unknown kind": ({"to": "float16"}, ValueError, "to must be one of.*'int16'.*got 'float16'"),
    "one name": ({"signed": "mu"}, TypeError, r"signed must be a sequence of names"),
    "no name": ({"nonnegative": (3,)}, TypeError, "nonnegative must be a name"),
    "both": ({"signed": ("nu",)}, ValueError, r"no name in common, got \['nu'\]"),
}


@pytest.mark.parametrize("what", MISTAKES)
def test_mistakes_are_told(what: str) -> None:
    options, error, told = MISTAKES[what]
    with pytest.raises(error, match=told):
        gs.precision.compress_moments(**{"inner": optax.adam(0.1), **options}).init(jnp.ones(3))
