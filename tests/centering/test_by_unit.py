"""What all transforms of mean stabilization have in common: units, dtypes, broken entries."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given
from hypothesis import strategies as st

import gradstable as gs
from tests.centering.running import apply
from tests.oracles.centering import by_output, centralize_row, normalize_row, stabilize_row

Tx = optax.GradientTransformationExtraArgs
CURVED = ("tanh", "softsign", "mu_law", "trust_region")
TRANSFORMS: dict[str, Tx] = {
    "centralize": gs.centering.centralize(),
    "standardize": gs.centering.standardize(),
    "normalize": gs.centering.normalize(units="flax"),
    **{
        f"mean_stabilize({adjust})": gs.centering.mean_stabilize(adjust)
        for adjust in ("none", "norm", "snr", *CURVED)
    },
}
ROWS: dict[str, Callable[[Any], list[float]]] = {
    "centralize": centralize_row,
    "standardize": lambda unit: stabilize_row(unit, "norm"),
    "normalize": normalize_row,
    **{
        f"mean_stabilize({adjust})": lambda unit, adjust=adjust: stabilize_row(unit, adjust)
        for adjust in ("none", "norm", "snr", *CURVED)
    },
}
# What gives the same for a gradient of any size, and what grows with it.
SCALE_FREE = (
    "standardize",
    "normalize",
    *(f"mean_stabilize({adjust})" for adjust in ("norm", *CURVED)),
)
EQUIVARIANT = ("centralize", "mean_stabilize(none)", "mean_stabilize(snr)")


_JITTED = {
    name: jax.jit(lambda g, tx=tx: tx.update(g, tx.init(g))[0]) for name, tx in TRANSFORMS.items()
}


def normal(*shape: int, seed: int = 0, mean: float = 0.5) -> np.ndarray:
    return (np.random.default_rng(seed).normal(size=shape) + mean).astype(np.float32)


@pytest.mark.parametrize("name", TRANSFORMS)
def test_equals_the_float64_oracle(name: str) -> None:
    kernel = normal(7, 4)
    kernel[:, 1] = kernel[:, 1] * 1e12 + 1e13
    kernel[:, 2] = 0.25
    image = normal(3, 3, 2, 5, seed=1)
    got = apply(TRANSFORMS[name], {"a": {"kernel": kernel}, "b": {"kernel": image}})
    for leaf, g in ((got["a"], kernel), (got["b"], image)):
        expected = by_output(g, ROWS[name])
        # Entries near the mean of their unit are differences: exact to the size of the unit.
        size = np.abs(expected).max(axis=tuple(range(g.ndim - 1)), keepdims=True)
        assert (np.abs(leaf["kernel"] - expected) <= 1e-5 * np.maximum(size, 1e-30)).all()


@pytest.mark.parametrize("name", TRANSFORMS)
@pytest.mark.parametrize(("dtype", "tolerance"), [("bfloat16", 2**-8), ("float16", 2**-10)])
def test_statistics_are_float32_in_low_precision(name: str, dtype: str, tolerance: float) -> None:
    kernel = normal(50, 3, mean=8.0).astype(jnp.dtype(dtype))
    got = apply(TRANSFORMS[name], {"kernel": kernel})["kernel"]
    assert got.dtype == kernel.dtype
    expected = by_output(kernel, ROWS[name])
    size = np.abs(expected).max()
    np.testing.assert_allclose(np.asarray(got, np.float64), expected, atol=tolerance * size)


@pytest.mark.parametrize("name", TRANSFORMS)
def test_pitfall_one_exploding_layer_of_a_stack_leaves_the_others(name: str) -> None:
    """24 layers in one leaf behave as 24 leaves: nothing crosses from one to the other."""
    jitted = _JITTED[name]
    healthy = {"kernel": normal(24, 6, 6), "bias": normal(24, 6, seed=1)}
    undisturbed, others = jitted(healthy), np.arange(24) != 7
    for fault in (1e30, np.nan, np.inf):
        g = jax.tree.map(np.copy, healthy)
        for leaf in g.values():
            leaf[7] *= np.float32(fault)
        stacked = jitted(g)
        for i in range(24):
            alone = jitted(jax.tree.map(lambda leaf, i=i: leaf[i], g))
            for part, expected in alone.items():
                np.testing.assert_allclose(stacked[part][i], expected, rtol=1e-6, atol=1e-6)
        for part, got in stacked.items():
            np.testing.assert_array_equal(got[others], undisturbed[part][others])
            assert np.isfinite(got).all()
            assert np.abs(got[others]).max() > 0.1


@pytest.mark.parametrize("name", TRANSFORMS)
def test_a_unit_with_a_broken_entry_becomes_zero_as_a_whole(name: str) -> None:
    kernel = normal(5, 3)
    healthy = _JITTED[name]({"kernel": kernel})["kernel"]
    for bad in (np.nan, np.inf, -np.inf):
        kernel[2, 1] = bad
        got = _JITTED[name]({"kernel": kernel})["kernel"]
        np.testing.assert_array_equal(got[:, 1], 0.0)
        np.testing.assert_array_equal(got[:, [0, 2]], healthy[:, [0, 2]])


LARGEST = float(np.finfo(np.float32).max)
EXTREMES = {
    "largest": np.full((64, 3), LARGEST, np.float32),
    "both signs": np.tile(np.asarray([[LARGEST], [-LARGEST]], np.float32), (32, 3)),
    "one of them": np.vstack([np.full((1, 3), LARGEST), np.ones((63, 3))]).astype(np.float32),
    "tiny": np.linspace(1e-37, 9e-37, 192, dtype=np.float32).reshape(64, 3),
    "subnormal": np.full((64, 3), 1e-42, np.float32),
    "zero": np.zeros((64, 3), np.float32),
}


@pytest.mark.parametrize("name", TRANSFORMS)
def test_every_finite_gradient_has_a_finite_update_without_a_warning(name: str) -> None:
    got = apply(TRANSFORMS[name], EXTREMES)
    assert all(np.isfinite(leaf).all() for leaf in got.values())
    assert not got["zero"].any()
    if name in SCALE_FREE:
        assert np.abs(got["both signs"]).max() > 0.1
    else:
        assert got["both signs"][0, 0] > 1e37


@pytest.mark.parametrize("name", [name for name in TRANSFORMS if name != "normalize"])
def test_equal_entries_leave_nothing(name: str) -> None:
    """Pitfall: what rounding leaves of a mean, divided by itself, is a gradient of size 1."""
    for value in (1.0, 0.1, 611.461, -3e38, 1e-30):
        got = _JITTED[name]({"kernel": np.full((10_007, 2), value, np.float32)})
        assert np.abs(got["kernel"]).max() <= (1e-6 * abs(value) if name == "centralize" else 0.0)


@given(st.integers(0, 100), st.integers(0, 1000))
def test_size_of_the_gradient_is_kept_or_forgotten(exponent: int, seed: int) -> None:
    kernel, factor = normal(6, 3, seed=seed), np.float32(2.0**exponent)
    for name in TRANSFORMS:
        plain, scaled = (_JITTED[name]({"kernel": k})["kernel"] for k in (kernel, kernel * factor))
        kept = float(factor) if name in EQUIVARIANT else 1.0
        np.testing.assert_allclose(scaled, plain * kept, rtol=1e-5, atol=1e-5 * kept)


def test_without_eps_there_is_no_size_at_all() -> None:
    kernel = normal(6, 3)
    for tx in (
        gs.centering.standardize(eps=0.0),
        gs.centering.normalize(units="leaf", eps=0.0),
        gs.centering.mean_stabilize("tanh", eps=0.0),
    ):
        plain = apply(tx, {"kernel": kernel})["kernel"]
        factors = [np.float32(factor) for factor in (1e-35, 1e37)]
        for scaled in apply(tx, [{"kernel": kernel * factor} for factor in factors]):
            np.testing.assert_allclose(scaled["kernel"], plain, rtol=1e-4, atol=1e-6)


@given(st.permutations(range(6)), st.integers(0, 1000))
def test_order_of_entries_does_not_matter(order: list[int], seed: int) -> None:
    kernel = normal(6, 3, seed=seed)
    for name, jitted in _JITTED.items():
        plain = np.asarray(jitted({"kernel": kernel})["kernel"])
        permuted = jitted({"kernel": kernel[order]})["kernel"]
        np.testing.assert_allclose(permuted, plain[order], rtol=1e-4, atol=1e-5, err_msg=name)


@pytest.mark.parametrize("name", TRANSFORMS)
def test_scalars_pairs_and_empty_leaves(name: str) -> None:
    g = {"empty": jnp.ones((0, 3)), "none": jnp.ones((3, 0)), "one": jnp.asarray(-4.0)}
    got = apply(TRANSFORMS[name], {**g, "bias": jnp.asarray([3.0, 1.0])})
    assert (got["empty"].shape, got["none"].shape) == ((0, 3), (3, 0))
    assert got["one"] < 0.0, "a scalar parameter must be able to learn"
    assert got["bias"].any()


@pytest.mark.parametrize("name", TRANSFORMS)
def test_other_units(name: str) -> None:
    kernel = normal(4, 3, 5)
    base, _, adjust = name.rstrip(")").partition("(")
    tx = getattr(gs.centering, base)(*([adjust] if adjust else []), units=(0, 1))
    rows = [by_output(np.moveaxis(layer, -1, 0), ROWS[name]).T for layer in kernel]
    np.testing.assert_allclose(apply(tx, {"w": kernel})["w"], np.stack(rows), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "factory",
    [
        gs.centering.centralize,
        gs.centering.standardize,
        gs.centering.normalize,
        gs.centering.mean_stabilize,
    ],
)
def test_errors(factory: Callable[..., Tx]) -> None:
    with pytest.raises(ValueError, match=r"units must be one of .*'rows'"):
        factory(units="rows")
    with pytest.raises(TypeError, match=r"units must be one of .* a tuple of axes"):
        factory(units=3)
    tx, g = factory(units=(2,)), {"w": jnp.ones((2, 3))}
    with pytest.raises(ValueError, match=r"leaf \['w'\] keep the axes \(2,\)"):
        tx.update(g, tx.init(g))
    tx, g = factory(), {"w": jnp.ones((2, 3), jnp.complex64)}
    with pytest.raises(TypeError, match=rf"\['w'\].*{factory.__name__} is defined for real"):
        tx.update(g, tx.init(g))
