"""Gradients that break runs: every kind, at every leaf in turn, at several positions."""

from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np

SHAPES = {"bias": (4,), "kernel": (3, 4), "scale": ()}
_MIXED = {"bias": "bfloat16", "kernel": "float32", "scale": "float16"}

_EXTREMES = {
    "nan": np.nan,
    "+inf": np.inf,
    "-inf": -np.inf,
    "+max": "max",
    "-max": "-max",
    "+1e20": 1e20,
    "-1e20": -1e20,
    "+1e38": 1e38,
    "-1e38": -1e38,
    "tiny": "tiny",
    "subnormal": "subnormal",
    "zero": 0.0,
}


def extreme(name: str, dtype: jnp.dtype) -> np.ndarray:
    """Return one bad number in a dtype; what is too large for float16 becomes infinite."""
    info = jnp.finfo(dtype)
    value = _EXTREMES[name]
    number = {
        "max": info.max,
        "-max": -info.max,
        "tiny": info.tiny,
        "subnormal": info.smallest_subnormal,
    }.get(value, value)
    with np.errstate(over="ignore"):
        return np.asarray(number).astype(dtype)


def dtype_of(leaf: str, dtype: str) -> jnp.dtype:
    return jnp.dtype(_MIXED[leaf] if dtype == "mixed" else dtype)


def params_of(dtype: str) -> dict[str, jax.Array]:
    rng = np.random.default_rng(1)
    return {
        name: jnp.asarray(rng.normal(size=shape), dtype_of(name, dtype))
        for name, shape in SHAPES.items()
    }


def calm(seed: int, dtype: str) -> dict[str, np.ndarray]:
    """Return a healthy gradient."""
    rng = np.random.default_rng(seed)
    return {
        name: np.asarray(rng.normal(size=shape) * 0.1).astype(dtype_of(name, dtype))
        for name, shape in SHAPES.items()
    }


def storms(dtype: str) -> Iterator[tuple[str, dict[str, np.ndarray]]]:
    """Yield name and gradient of every single-fault case, and of faults together."""

    def bad(name: str, leaf: str) -> np.ndarray:
        return extreme(name, dtype_of(leaf, dtype))

    for name in _EXTREMES:
        everywhere = {leaf: np.full(shape, bad(name, leaf)) for leaf, shape in SHAPES.items()}
        yield f"{name} everywhere", everywhere
        for leaf, shape in SHAPES.items():
            size = int(np.prod(shape))
            for position in sorted({0, size // 2, size - 1}):
                gradient = calm(position, dtype)
                gradient[leaf] = _with(gradient[leaf], position, bad(name, leaf))
                yield f"{name} at {leaf}[{position}]", gradient
    for first, second in (("nan", "+inf"), ("+inf", "-inf"), ("+max", "-max"), ("+1e38", "nan")):
        gradient = calm(7, dtype)
        gradient["bias"] = _with(gradient["bias"], 1, bad(first, "bias"))
        gradient["kernel"] = _with(gradient["kernel"], 5, bad(second, "kernel"))
        yield f"{first} and {second}", gradient


def _with(leaf: np.ndarray, position: int, value: np.ndarray) -> np.ndarray:
    changed = leaf.copy()
    changed.reshape(-1)[position] = value
    return changed
