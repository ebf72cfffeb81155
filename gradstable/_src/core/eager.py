"""Outside ``jit``, run a function op by op at first, and compiled once it is called in a loop.

A verdict takes about two hundred operations on scalars. Dispatched one by one, they take longer
than the step of a small optimizer; compiled for only a call or two, they would take even longer.
"""

import functools
from collections.abc import Callable
from typing import Any, TypeVar, cast

import jax
import jax.core

from gradstable._src.core.equations import is_array

Function = TypeVar("Function", bound=Callable[..., Any])

# After this many calls with arguments of one structure, assume a loop.
FIRST_CALLS = 8


def when_repeated(function: Function) -> Function:
    """Compile a function of trees that is called repeatedly outside ``jit``.

    Nothing changes inside ``jit``, or if an argument is not an array. A function that cannot be
    compiled, because it looks at values, keeps running op by op.
    """
    compiled = jax.jit(function)
    calls: dict[Any, int] = {}
    never: set[Any] = set()

    @functools.wraps(function)
    def run(*args: Any) -> Any:
        leaves, structure = jax.tree.flatten(args)
        if structure in never or not all(map(_is_concrete, leaves)):
            return function(*args)
        calls[structure] = calls.get(structure, 0) + 1
        if calls[structure] <= FIRST_CALLS:
            return function(*args)
        try:
            return compiled(*args)
        except (jax.errors.JAXTypeError, jax.errors.JAXIndexError):
            never.add(structure)
            return function(*args)

    return cast("Function", run)


def is_traced(*trees: object) -> bool:
    """Whether any leaf is a tracer: inside ``jit``, ``scan``, ``vmap`` or under a derivative."""
    return any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(trees))


def _is_concrete(leaf: object) -> bool:
    return is_array(leaf) and not isinstance(leaf, jax.core.Tracer)
