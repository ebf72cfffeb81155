"""The loss and its gradients, as a program of arrays."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gradstable._src.autopsy.births import is_finite
from gradstable._src.autopsy.examples import has_examples
from gradstable._src.autopsy.places import NOWHERE, line_of
from gradstable._src.core.equations import is_array, is_input
from gradstable._src.core.paths import leaf_paths
from gradstable._src.core.tree_checks import first_deleted
from gradstable._src.walk.compare import first_difference
from gradstable._src.walk.walk import bare
from gradstable._src.walk.weights import Weights

# A larger program takes longer to compile than to run, equation by equation, a few times.
_COMPILED = 2_000
# What host code returns can be something else each time.
_CALLBACKS = frozenset({"io_callback", "pure_callback"})


class Program:
    """The loss and its gradients, as equations of all arrays among the arguments.

    Attributes:
      names: path of each array.
      given: the arrays, those of the parameters first.
      num_weights: how many of them are parameters.
      closed: the equations.
      size: how many of them there are, those inside of others included.
    """

    def __init__(
        self, loss_fn: Callable[..., Any], params: Any, args: Any, *, has_aux: bool
    ) -> None:
        check_alive(params, args)
        self._loss_fn, self._has_aux = loss_fn, has_aux
        self._weights = Weights(params)
        if not self._weights.leaves:
            msg = (
                "params has no array of floating-point numbers to take a gradient for; convert "
                "numbers and lists with jnp.asarray"
            )
            raise TypeError(msg)
        self._each, self._structure = jax.tree.flatten(args)
        weights = list(map(jnp.asarray, self._weights.leaves))
        arrays = [jnp.asarray(leaf) for leaf in self._each if is_input(leaf)]
        others = zip(leaf_paths(args), self._each, strict=True)
        self.num_weights = len(weights)
        self.names = [path or "params" for path in self._weights.paths]
        self.names += [f"args{path}" for path, leaf in others if is_input(leaf)]
        self.given = [*weights, *arrays]
        self.closed = self._trace()
        self.size, self._has_callbacks = _counted(self.closed.jaxpr)
        self._function = _as_function(self.closed)
        self._run = jax.jit(self._function) if self.size < _COMPILED else self._function

    def both(self, given: Sequence[Any]) -> tuple[Any, list[Any]]:
        """Return the loss and its gradients, for these values of all arrays."""
        arrays = iter(given[self.num_weights :])
        full = [next(arrays) if is_input(leaf) else leaf for leaf in self._each]
        args = jax.tree.unflatten(self._structure, full)

        def loss(weights: Sequence[Any]) -> Any:
            result = self._loss_fn(self._weights.replaced(weights), *args)
            check_result(result, has_aux=self._has_aux)
            return result

        weights = list(given[: self.num_weights])
        value, gradients = jax.value_and_grad(loss, has_aux=self._has_aux)(weights)
        return (value[0] if self._has_aux else value), gradients

    def is_sound(self, chosen: Sequence[int], axis: int, size: int) -> bool:
        """Whether loss and gradients are finite for a batch of these examples, repeated."""
        numbers = np.resize(np.asarray(chosen), size)
        given = [
            _taken(array, numbers, axis)
            if number >= self.num_weights and has_examples(array, axis, size)
            else array
            for number, array in enumerate(self.given)
        ]
        return all(map(is_finite, self._run(*given)))

    def impure(self) -> str:
        """Return where the program is another when it is traced or run again; empty if nowhere."""
        try:
            found = first_difference(self.closed, self._trace())
        except Exception as error:  # a loss that uses something up may fail in any way
            return f"a second call, which raised {type(error).__name__}"
        if found is not None:
            place = line_of(found.eqn) if found.eqn is not None else NOWHERE
            return f"{place.file}:{place.line}" if place.file else "a constant"
        if self._has_callbacks:
            one, two = (self._run(*self.given) for _ in range(2))
            same = all(np.array_equal(a, b, equal_nan=True) for a, b in zip(one, two, strict=True))
            return "" if same else "a callback"
        return ""

    def _trace(self) -> Any:
        # A new function each time: JAX remembers the program of one that it has traced.
        return jax.make_jaxpr(lambda given: self.both(given))(self.given)


def _taken(array: jax.Array, numbers: np.ndarray, axis: int) -> jax.Array:
    taken = jnp.take(array, numbers, axis)
    return jax.device_put(taken, array.sharding) if array.committed else taken


def check_alive(params: Any, args: Any) -> None:
    """Raise a ``ValueError`` if the memory of an array was given away."""
    for name, tree in (("params", params), ("args", args)):
        path = first_deleted(tree)
        if path is not None:
            msg = (
                f"{name}{path} has been deleted, as is everything that a step with "
                "donate_argnums was called with; pass a copy from before the step, or do not "
                "donate it"
            )
            raise ValueError(msg)


def check_result(result: Any, *, has_aux: bool) -> None:
    """Raise a ``TypeError`` if what a loss returned is not a loss."""
    is_pair = isinstance(result, tuple) and len(result) == 2
    if has_aux and not is_pair:
        msg = (
            f"has_aux=True, but loss_fn returned {_called(result)}, not a pair of a loss and "
            "anything else; pass has_aux=False"
        )
        raise TypeError(msg)
    value: Any = result[0] if has_aux else result
    is_number = is_array(value) and jnp.shape(value) == ()
    if is_number and jnp.issubdtype(jnp.result_type(value), jnp.floating):
        return
    remedy = "take the mean or the sum of it" if is_array(value) else "return the loss alone"
    if isinstance(value, (tuple, list)):
        remedy = "pass has_aux=True if it is a loss and anything else"
    elif has_aux:
        remedy = "the loss is the first of the pair"
    msg = f"loss_fn must return a scalar of floating-point numbers, got {_called(value)}; {remedy}"
    raise TypeError(msg)


def _called(value: Any) -> str:
    if is_array(value):
        return f"{jnp.result_type(value)} of shape {jnp.shape(value)}"
    return f"a {type(value).__name__}"


def _counted(jaxpr: Any) -> tuple[int, bool]:
    """Return the number of equations, with those inside of others, and whether any calls back."""
    count, calls = 0, False
    waiting = [jaxpr]
    while waiting:
        for eqn in waiting.pop().eqns:
            count += 1
            calls |= eqn.primitive.name in _CALLBACKS
            for value in eqn.params.values():
                each = value if isinstance(value, (tuple, list)) else (value,)
                inner = list(map(bare, each))
                waiting += [one for one in inner if hasattr(one, "eqns")]
    return count, calls


def _as_function(closed: Any) -> Callable[..., list[Any]]:
    from jax.extend.core import jaxpr_as_fun

    return jaxpr_as_fun(closed)
