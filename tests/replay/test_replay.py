"""The same step again: equal bits if the data is at fault, others if the machine is."""

import itertools
from collections.abc import Callable
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import gradstable as gs

TX = gs.guard(optax.adam(1e-2))
HERE = jax.local_devices()[0]


def loss_fn(params: Any, batch: Any) -> jax.Array:
    hidden = jnp.tanh(batch["x"] @ params["in"].astype(jnp.float32))
    return jnp.mean((hidden @ params["out"] - batch["y"]) ** 2)


@jax.jit
def gradient_of(params: Any, batch: Any) -> tuple[jax.Array, Any]:
    return jax.value_and_grad(loss_fn)(params, batch)


@jax.jit
def apply(params: Any, opt_state: Any, gradient: Any) -> tuple[Any, Any]:
    updates, opt_state = TX.update(gradient, opt_state, params)
    return optax.apply_updates(params, updates), opt_state


def step(params: Any, opt_state: Any, batch: Any) -> Any:
    loss, gradient = gradient_of(params, batch)
    return *apply(params, opt_state, gradient), loss


COMPILED = jax.jit(step)


def start(seed: int = 0, *, bad: bool = False) -> tuple[Any, Any, Any]:
    rng = np.random.default_rng(seed)
    params = {
        "in": jnp.asarray(rng.normal(size=(4, 8)), jnp.bfloat16),
        "out": jnp.asarray(rng.normal(size=(8, 1)), jnp.float32),
    }
    x = rng.normal(size=(16, 4)).astype(np.float32)
    if bad:
        x[seed % 16, 2] = np.nan
    return params, TX.init(params), {"x": x, "y": rng.normal(size=(16, 1)).astype(np.float32)}


def flipped(tree: Any, leaf: int, bit: int) -> Any:
    """Return a tree with one bit of one entry flipped, as a machine might do."""
    leaves, structure = jax.tree.flatten(tree)
    array = np.array(leaves[leaf])
    words = array.view(f"u{array.itemsize}").reshape(-1)
    words[words.size // 2] ^= np.asarray(1 << bit, words.dtype)
    leaves[leaf] = jnp.asarray(array)
    return jax.tree.unflatten(structure, leaves)


Flip = Callable[[Any], Any]


def faulty(where: str, flip: Flip, *, at: int = 1) -> Callable[..., Any]:
    """Return the step on a machine that flips a bit in the call with this number."""
    calls = itertools.count()

    def run(params: Any, opt_state: Any, batch: Any) -> Any:
        now = next(calls) == at
        loss, gradient = gradient_of(params, batch)
        gradient = flip(gradient) if now and where == "gradient" else gradient
        params, opt_state = apply(params, opt_state, gradient)
        if now and where == "parameter":
            params = flip(params)
        if now and where == "moment":
            adam = opt_state.wrapped_state[0]
            adam = adam._replace(mu=flip(adam.mu))
            opt_state = opt_state._replace(wrapped_state=(adam, *opt_state.wrapped_state[1:]))
        return params, opt_state, gradient, loss

    return run


@pytest.mark.parametrize("bit", [0, 7, 12, 15])
@pytest.mark.parametrize("leaf", [0, 1])
@pytest.mark.parametrize("where", ["gradient", "moment", "parameter"])
def test_a_flipped_bit_makes_the_replays_differ(where: str, leaf: int, bit: int) -> None:
    found = gs.replay(faulty(where, lambda tree: flipped(tree, leaf, bit)), *start(), device=HERE)
    assert found.verdict == "different"
    name = "['in']" if leaf == 0 else "['out']"
    place = {"gradient": "[2]", "moment": "[1].wrapped_state[0].mu", "parameter": "[0]"}[where]
    assert f"{place}{name}" in found.unrepeated
    assert "The machine is at fault" in str(found)


@pytest.mark.parametrize("bit", [22, 30, 31])
def test_high_bits_of_a_wide_dtype(bit: int) -> None:
    for where in ("gradient", "moment", "parameter"):
        found = gs.replay(faulty(where, lambda tree: flipped(tree, 1, bit)), *start(), device=HERE)
        assert found.verdict == "different", where


@pytest.mark.parametrize("bad", [False, True], ids=["healthy", "bad data"])
def test_a_hundred_steps_are_the_same(bad: bool) -> None:
    for seed in range(100):
        args = start(seed, bad=bad)
        found = gs.replay(COMPILED, *args, expected=COMPILED(*args), device=HERE)
        assert found.verdict == "same", str(found)
        assert bool(jnp.isnan(found.outputs[2])) == bad
    assert "are as expected" in str(found)
    assert "The data or the model is at fault" in str(found)


def test_a_fault_that_has_passed_is_seen_only_by_what_was_recorded() -> None:
    args = start()
    live = faulty("parameter", lambda tree: flipped(tree, 1, 3), at=0)
    sound = faulty("parameter", lambda tree: tree)
    recorded = live(*args)
    assert gs.replay(sound, *args).verdict == "same"
    assert "pass expected=" in str(gs.replay(sound, *args))
    found = gs.replay(sound, *args, expected=recorded)
    assert (found.verdict, found.unexpected) == ("different", ("[0]['out']",))
    assert "for a moment" in str(found)


def test_fingerprints_are_expected_as_well_as_values() -> None:
    args = start()
    params, opt_state, loss = recorded = COMPILED(*args)
    each = jax.tree.map(gs.fingerprint, recorded)
    parts = (gs.fingerprint(params), None, float(loss))
    for expected in (each, parts, gs.fingerprint(recorded), (params, None, None)):
        assert gs.replay(COMPILED, *args, expected=expected, device=HERE).verdict == "same"
    wrong = (gs.fingerprint(flipped(params, 0, 2)), None, None)
    found = gs.replay(COMPILED, *args, expected=wrong, device=HERE)
    assert (found.verdict, found.unexpected) == ("different", ("[0]",))
    whole = gs.fingerprint((params, opt_state, loss + 1))
    assert gs.replay(COMPILED, *args, expected=whole, device=HERE).unexpected == ("",)


def test_another_device_is_tried_and_a_lasting_fault_of_one_is_told() -> None:
    args = start()
    found = gs.replay(COMPILED, *args)
    assert (found.verdict, found.device) == ("same", str(HERE))
    assert found.other == str(jax.local_devices()[1])
    third = jax.local_devices()[3]

    def wrong_there(params: Any, opt_state: Any, batch: Any) -> Any:
        new, opt_state, loss = COMPILED(params, opt_state, batch)
        return (flipped(new, 0, 1) if third in new["in"].devices() else new), opt_state, loss

    found = gs.replay(wrong_there, *args, device=third)
    assert (found.verdict, found.elsewhere) == ("elsewhere", ("[0]['in']",))
    assert "One of the two devices computes wrongly" in str(found)
    other_kind = found._replace(same_kind=False)
    assert "rounds differently" in str(other_kind)


def test_arguments_on_several_devices_stay_where_they_are() -> None:
    mesh = jax.make_mesh((8,), ("x",), axis_types=(AxisType.Auto,))
    x = jax.device_put(jnp.arange(16.0), NamedSharding(mesh, PartitionSpec("x")))
    found = gs.replay(jax.jit(lambda x: (jnp.sum(x), x * 2)), x)
    assert (found.verdict, found.device, found.other) == ("same", "8 devices", "")
    assert "several devices" in str(found)
    with pytest.raises(ValueError, match="device must be None for arguments on 8 devices"):
        gs.replay(jnp.sum, x, device=HERE)


def test_a_step_that_cannot_run_elsewhere_is_judged_here() -> None:
    stays = jax.device_put(jnp.ones(3), HERE)
    found = gs.replay(lambda x: jnp.add(x, stays), jnp.ones(3))
    assert (found.verdict, found.other) == ("same", "")
    assert "it cannot run on" in str(found)


def test_the_step_may_donate_its_arguments() -> None:
    params, opt_state, batch = start()
    donating = jax.jit(step, donate_argnums=(0, 1))
    found = gs.replay(donating, params, opt_state, batch, times=3)
    assert (found.verdict, found.times) == ("same", 3)
    jax.block_until_ready((params, opt_state))  # still there


def test_an_argument_that_was_donated_is_named() -> None:
    params, opt_state, batch = start()
    params["out"].delete()
    with pytest.raises(ValueError, match=r"args\[0\]\['out'\] was donated.*keep a copy"):
        gs.replay(COMPILED, params, opt_state, batch)


def test_a_step_that_overwrites_an_array_of_the_host_gets_its_own() -> None:
    def adds(x: np.ndarray) -> np.ndarray:
        x += 1
        return x

    assert gs.replay(adds, np.zeros(3), device=HERE).verdict == "same"


def test_randomness_of_the_host_is_not_called_a_fault() -> None:
    rng = np.random.default_rng(0)
    found = gs.replay(lambda x: x + rng.normal(), jnp.ones(3))
    assert found.verdict == "impure"
    assert "Tracing the step twice gives different programs" in str(found)
    # Compiled, it repeats what it drew when it was traced; another process draws something else.
    compiled = jax.jit(lambda x: x + jnp.asarray(rng.normal(size=3), jnp.float32))
    assert gs.replay(compiled, jnp.ones(3), device=HERE).verdict == "same"
    found = gs.replay(compiled, jnp.ones(3), expected=jnp.zeros(3), device=HERE)
    assert found.verdict == "impure"


def test_a_callback_is_pointed_out() -> None:
    rng = np.random.default_rng(0)
    shape = jax.ShapeDtypeStruct((3,), jnp.float32)

    @jax.jit
    def draws(x: jax.Array) -> jax.Array:
        return x + jax.pure_callback(lambda: rng.normal(size=3).astype(np.float32), shape)

    found = gs.replay(draws, jnp.ones(3), device=HERE)
    assert found.verdict == "different"
    assert "The step calls back to the host" in str(found)


def test_keys_and_other_leaves_pass_through() -> None:
    key = jax.random.key(0)

    def drops(key: jax.Array, x: jax.Array, mode: str) -> dict[str, Any]:
        return {"x": x * jax.random.bernoulli(key, 0.5, x.shape), "key": key, "mode": mode}

    found = gs.replay(drops, key, jnp.ones(8), "train")
    assert (found.verdict, found.leaves) == ("same", 2)


def test_nothing_is_compiled_again() -> None:
    chex.clear_trace_counter()
    counted = jax.jit(chex.assert_max_traces(step, n=1))
    args = start()
    counted(*args)
    assert gs.replay(counted, *args, device=HERE).verdict == "same"


def test_mistakes_are_named() -> None:
    args = start()
    with pytest.raises(ValueError, match="times"):
        gs.replay(COMPILED, *args, times=1)
    with pytest.raises(ValueError, match="expected must have the structure"):
        gs.replay(COMPILED, *args, expected=(1.0, 2.0), device=HERE)
    with pytest.raises(ValueError, match=r"expected\[0\] must be gs.fingerprint"):
        gs.replay(COMPILED, *args, expected=(1.0, None, None), device=HERE)
    with pytest.raises(TypeError, match="outside of jit"):
        jax.jit(lambda x: gs.replay(jnp.sum, x).unrepeated)(jnp.ones(3))
