"""What taps cost: a transformer without them, with them in a step that measures, and in others.

Run ``python -m benchmarks.taps``; it takes a minute. XLA counts both branches of a condition, so
the steps that do not measure are compiled once more with nothing in the branch that does.
"""

import time
from collections.abc import Callable
from typing import Any, NamedTuple
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import optax

import gradstable as gs
from gradstable._src.taps import probe


class Size(NamedTuple):
    """The size of a transformer, and of its batch."""

    width: int = 256
    heads: int = 4
    blocks: int = 6
    letters: int = 512
    length: int = 128
    batch: int = 8


class Cost(NamedTuple):
    """What XLA counts for a step."""

    gigabytes: float
    gigaflops: float
    temp_megabytes: float


def loss_fn(params: Any, tokens: jax.Array, *, taps: bool) -> jax.Array:
    """Return the loss of a decoder with three taps in each block."""
    h = params["embedding"][tokens]
    past = jnp.tril(jnp.ones((tokens.shape[1],) * 2, bool))
    for place, block in enumerate(params["blocks"]):
        z = _normed(h)
        q, k, v = (
            jnp.einsum("btd,dhe->bthe", z, block[name]) for name in ("query", "key", "value")
        )
        logits = jnp.einsum("bqhe,bkhe->bhqk", q, k) * q.shape[-1] ** -0.5
        if taps:
            logits = gs.taps.attention_logits(f"blocks/{place}", logits)
        weights = jax.nn.softmax(jnp.where(past, logits, -jnp.inf))
        h = h + jnp.einsum("bhqk,bkhe,hed->bqd", weights, v, block["out"])
        mlp = jax.nn.gelu(_normed(h) @ block["up"]) @ block["down"]
        if taps:
            mlp = gs.tap(f"blocks/{place}/mlp", mlp)
        h = h + mlp
        if taps:
            h = gs.tap(f"blocks/{place}/residual", h)
    found = _normed(h[:, :-1]) @ params["head"]
    return optax.softmax_cross_entropy_with_integer_labels(found, tokens[:, 1:]).mean()


def steps(size: Size) -> tuple[dict[str, Callable[..., Any]], tuple[Any, ...]]:
    """Return a step without and one with taps, and their arguments; the last is the step number."""
    params = _params(size)
    tokens = jax.random.randint(jax.random.key(1), (size.batch, size.length), 0, size.letters)
    tx = gs.guard(optax.adam(1e-3))

    def apply(params: Any, state: Any, grads: Any) -> Any:
        updates, state = tx.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    def bare(params: Any, state: Any, tokens: jax.Array, number: jax.Array) -> Any:
        del number
        loss, grads = jax.value_and_grad(loss_fn)(params, tokens, taps=False)
        return *apply(params, state, grads), loss

    def tapped(params: Any, state: Any, tokens: jax.Array, number: jax.Array) -> Any:
        grads_of = gs.taps.value_and_grad(loss_fn, when=number % 50 == 0)
        (loss, grads), taps = grads_of(params, tokens, taps=True)
        return *apply(params, state, grads), loss, taps

    return {"bare": bare, "tapped": tapped}, (params, tx.init(params), tokens, jnp.int32(1))


def compiled(step: Callable[..., Any], args: tuple[Any, ...]) -> tuple[Any, Cost]:
    """Compile a step; return it with its cost."""
    done = jax.jit(step).lower(*args).compile()
    cost, memory = done.cost_analysis(), done.memory_analysis()
    if cost is None or memory is None:
        msg = f"{jax.default_backend()} does not count bytes and memory"
        raise RuntimeError(msg)
    numbers = cost["bytes accessed"] / 1e9, cost["flops"] / 1e9, memory.temp_size_in_bytes / 1e6
    return done, Cost(*numbers)


def count_without_measuring(step: Callable[..., Any], args: tuple[Any, ...]) -> Cost:
    """Return the cost of a step that does not measure."""

    def nothing(spec: Any, x: Any, call: Any, *, logits: bool) -> jax.Array:
        del x, call, logits
        return spec.zeros().forward

    with mock.patch.object(probe, "_collect", nothing):
        return compiled(lambda *args: step(*args), args)[1]


def main() -> None:
    """Print a table of costs, and of times relative to the step without taps."""
    made, args = steps(Size())
    programs = {name: compiled(step, args) for name, step in made.items()}
    rows = {
        "without taps": (programs["bare"], 1),
        "with taps, not measuring": (
            (programs["tapped"][0], count_without_measuring(made["tapped"], args)),
            1,
        ),
        "with taps, measuring": (programs["tapped"], 50),
    }
    times = {name: [] for name in rows}
    for _ in range(20):
        for name, ((program, _), number) in rows.items():
            begin = time.perf_counter()
            jax.block_until_ready(program(*args[:3], jnp.int32(number)))
            times[name].append(time.perf_counter() - begin)
    least = {name: float(np.min(one)) for name, one in times.items()}
    print("| step | GB moved | GFLOP | temporary MB | time |\n|---|--:|--:|--:|--:|")
    for name, ((_, cost), _) in rows.items():
        ratio = least[name] / least["without taps"]
        print(
            f"| {name} | {cost.gigabytes:.3f} | {cost.gigaflops:.2f} | {cost.temp_megabytes:.1f} "
            f"| {ratio:.2f} |"
        )


def _normed(x: jax.Array) -> jax.Array:
    return x * jax.lax.rsqrt(jnp.mean(x * x, axis=-1, keepdims=True) + 1e-6)


def _params(size: Size) -> Any:
    keys = iter(jax.random.split(jax.random.key(0), 2 + 6 * size.blocks))
    width, head = size.width, size.width // size.heads

    def kernel(*shape: int, inputs: int = width) -> jax.Array:
        return jax.random.normal(next(keys), shape) * inputs**-0.5

    def block() -> dict[str, jax.Array]:
        heads = {name: kernel(width, size.heads, head) for name in ("query", "key", "value")}
        return {
            **heads,
            "out": kernel(size.heads, head, width),
            "up": kernel(width, 4 * width),
            "down": kernel(4 * width, width, inputs=4 * width),
        }

    return {
        "embedding": kernel(size.letters, width, inputs=1),
        "head": kernel(width, size.letters),
        "blocks": [block() for _ in range(size.blocks)],
    }


if __name__ == "__main__":
    main()
