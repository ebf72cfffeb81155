"""Every loss that optax has too: each form of arguments that optax takes gives what optax gives."""

import inspect
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradstable as gs

RNG = np.random.default_rng(0)
LOGITS = jnp.asarray(RNG.normal(size=(4, 3, 5)), jnp.float32)
SHARES = jnp.asarray(RNG.dirichlet(np.ones(5), (4, 3)), jnp.float32)
CLASSES = jnp.asarray(RNG.integers(0, 5, (4, 3)))
ONE_HOT = jax.nn.one_hot(CLASSES, 5)
ROWS = jnp.asarray(RNG.random((4, 3)) < 0.6)
THERE = jnp.asarray(RNG.random((4, 3, 5)) < 0.7).at[..., 0].set(True)
KEPT = jnp.take_along_axis(THERE, CLASSES[..., None], -1)[..., 0] & ROWS
X, Y = LOGITS[..., 0], SHARES[..., 0]


def forms(*given: tuple[tuple[Any, ...], dict[str, Any]]) -> list[tuple[tuple[Any, ...], Any]]:
    return list(given)


TWINS: dict[str, tuple[Callable[..., Any], list[tuple[tuple[Any, ...], Any]]]] = {
    "softmax_cross_entropy": (
        gs.losses.softmax_cross_entropy,
        forms(
            ((LOGITS, SHARES), {}),
            ((LOGITS, ONE_HOT.astype(jnp.int32)), {}),
            ((LOGITS, ONE_HOT.astype(jnp.uint8)), {}),
            ((LOGITS, ONE_HOT > 0), {}),
            ((LOGITS, np.asarray(SHARES)), {}),
            ((LOGITS, SHARES[0, 0]), {}),
            ((LOGITS, SHARES[:, :1]), {}),
            ((LOGITS, 3 * SHARES), {}),
            ((LOGITS, SHARES, -1), {}),
            ((LOGITS, SHARES, 1), {}),
            ((LOGITS, SHARES, (0, 2)), {}),
            ((LOGITS, SHARES, (-1, 0)), {}),
            ((LOGITS, SHARES, None), {}),
            ((LOGITS, SHARES, -1, ROWS), {}),
            ((LOGITS, SHARES), {"where": THERE}),
            ((LOGITS, SHARES), {"where": ROWS[..., None]}),
            ((LOGITS, SHARES), {"where": THERE[:1], "axis": (1, 2)}),
            ((LOGITS, SHARES), {"where": ROWS[:, 0], "axis": (1, 2)}),
            ((LOGITS, SHARES), {"axis": None, "where": THERE}),
        ),
    ),
    "softmax_cross_entropy_with_integer_labels": (
        gs.losses.softmax_cross_entropy,
        forms(
            ((LOGITS, CLASSES), {}),
            ((LOGITS, CLASSES.astype(jnp.int8)), {}),
            ((LOGITS, np.asarray(CLASSES)), {}),
            ((LOGITS, CLASSES[:1]), {}),
            ((LOGITS, CLASSES, 2), {}),
            ((LOGITS, jnp.zeros((4, 5), int), 1), {}),
            ((LOGITS, jnp.asarray([0, 7, 14, 3]), (1, 2)), {}),
            ((LOGITS, jnp.asarray([0, 7, 14, 3]), (2, 1)), {}),
            ((LOGITS, jnp.asarray([0, 19, 7]), (-1, 0)), {}),
            ((LOGITS, CLASSES, -1, ROWS), {}),
            ((LOGITS, CLASSES, -1, THERE & KEPT[..., None]), {}),
            ((LOGITS, jnp.asarray([0, 5, 10, 0]), (1, 2), THERE), {}),
        ),
    ),
    "safe_softmax_cross_entropy": (
        gs.losses.softmax_cross_entropy,
        forms(
            ((LOGITS, SHARES), {}),
            ((jnp.where(THERE, LOGITS, -jnp.inf), jnp.where(THERE, SHARES, 0)), {}),
        ),
    ),
    "sigmoid_binary_cross_entropy": (
        gs.losses.sigmoid_binary_cross_entropy,
        forms(
            ((X, Y), {}),
            ((X, CLASSES > 2), {}),
            ((X, (CLASSES > 2).astype(jnp.int32)), {}),
            ((X, 1.0), {}),
            ((X, Y[0]), {}),
            ((X, Y[:, :1]), {}),
        ),
    ),
    "smooth_labels": (
        gs.losses.smooth_labels,
        forms(
            ((ONE_HOT, 0.1), {}),
            ((ONE_HOT, jnp.asarray(0.1)), {}),
            ((ONE_HOT,), {"alpha": 0.1, "axis": 1}),
            ((SHARES, 0.3), {"axis": (0, 2)}),
            ((SHARES, 0.3), {"axis": None}),
        ),
    ),
    "huber_loss": (
        gs.losses.huber,
        forms(
            ((X,), {}),
            ((X, Y), {}),
            ((X, Y), {"delta": 0.3}),
            ((X, CLASSES), {}),
            ((X, CLASSES > 2), {}),
            ((X, 0.5), {}),
            ((X, Y[0]), {}),
        ),
    ),
    "log_cosh": (
        gs.losses.log_cosh,
        forms(((X,), {}), ((X, Y), {}), ((X, CLASSES), {}), ((X, 0.5), {}), ((X, Y[:, :1]), {})),
    ),
}


def value_and_gradient(loss: Callable[..., Any], args: Any, options: Any) -> Any:
    """Return a loss, and the gradient of a weighted sum of it by its first argument."""
    value, pull = jax.vjp(lambda first: loss(first, *args[1:], **options), args[0])
    share = 0.5 + jnp.arange(value.size).reshape(value.shape) / value.size
    return value, *pull(share.astype(value.dtype))


@pytest.mark.parametrize("name", TWINS)
def test_every_form_gives_what_optax_gives(name: str) -> None:
    ours, calls = TWINS[name]
    theirs = getattr(optax.losses, name)
    # In one program: to compile as many as there are forms takes ten times as long.
    found = jax.jit(
        lambda: [[value_and_gradient(loss, *call) for loss in (ours, theirs)] for call in calls]
    )()
    for index, (mine, other) in enumerate(found):
        assert all(np.isfinite(part).all() for part in other), index
        for part, expected in zip(mine, other, strict=True):
            np.testing.assert_allclose(part, expected, rtol=1e-4, atol=2e-6, err_msg=str(index))


@pytest.mark.parametrize("name", TWINS)
def test_what_goes_by_position_in_optax_does_so_here(name: str) -> None:
    def by_position(function: Callable[..., Any]) -> list[str]:
        kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
        parameters = inspect.signature(function).parameters.values()
        return [parameter.name for parameter in parameters if parameter.kind is kind]

    theirs = by_position(getattr(optax.losses, name))
    assert by_position(TWINS[name][0])[: len(theirs)] == theirs


def test_every_namesake_is_compared() -> None:
    namesakes = {name for name in gs.losses.__all__ if hasattr(optax.losses, name)}
    assert namesakes <= TWINS.keys()


def test_pitfall_what_a_distribution_gives_to_a_class_taken_out_is_dropped() -> None:
    logits, labels = jnp.asarray([[0.0, 1.0, 2.0]]), jnp.asarray([[0.5, 0.25, 0.25]])
    where = jnp.asarray([[True, True, False]])
    loss, slope = jax.value_and_grad(
        lambda y: gs.losses.softmax_cross_entropy(logits, y, where=where).sum()
    )(labels)
    np.testing.assert_allclose(loss, 0.734946, rtol=1e-5)
    np.testing.assert_allclose(slope, [[1.313262, 0.313262, 0]], rtol=1e-5)
    # A logit of -inf is no mask: what is impossible and happens has an infinite loss, as in optax.
    impossible = jnp.where(where, logits, -jnp.inf)
    ours = gs.losses.softmax_cross_entropy(impossible, labels)
    assert ours == optax.softmax_cross_entropy(impossible, labels) == jnp.inf
