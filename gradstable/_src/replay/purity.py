"""Whether a function is the same each time it is traced, and whether it asks the host."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from gradstable._src.core.equations import is_array, is_input
from gradstable._src.walk.compare import first_difference


class Purity(NamedTuple):
    """What two traces of a function show.

    Attributes:
      impure: whether the traces differ: it read something that changes, on the host.
      calls_host: whether the program calls back to the host when it runs.
    """

    impure: bool
    calls_host: bool


PURE = Purity(impure=False, calls_host=False)


def purity_of(function: Callable[..., Any], args: tuple[Any, ...]) -> Purity:
    """Trace a function twice; one that cannot be traced counts as pure."""
    # Compiled functions remember their first trace.
    is_compiled = hasattr(function, "lower") and hasattr(function, "__wrapped__")
    bare = getattr(function, "__wrapped__") if is_compiled else function  # noqa: B009
    try:
        one, other = _program(bare, args), _program(bare, args)
    except Exception:
        return PURE
    impure = first_difference(one, other) is not None
    return Purity(impure=impure, calls_host="callback" in str(one))


def _program(function: Callable[..., Any], args: tuple[Any, ...]) -> Any:
    leaves, structure = jax.tree.flatten(args)

    def run(*given: Any) -> list[Any]:
        arrays = iter(given)
        full = [next(arrays) if is_input(leaf) else leaf for leaf in leaves]
        outputs = function(*jax.tree.unflatten(structure, full))
        return [leaf for leaf in jax.tree.leaves(outputs) if is_array(leaf)]

    return jax.make_jaxpr(run)(*(leaf for leaf in leaves if is_input(leaf)))
