"""Whether a function is the same each time it is traced, and whether it asks the host."""

import re
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from gradstable._src.core.equations import is_array, is_input
from gradstable._src.replay.fingerprint import fingerprint

# Where a function or a closure is in memory, in the text of a program.
_ADDRESS = re.compile(r"\b0x[0-9a-f]+")


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
    return Purity(impure=one != other, calls_host="callback" in one[0])


def _program(function: Callable[..., Any], args: tuple[Any, ...]) -> tuple[str, Any]:
    """Return the program as text, and its constants as hashes."""
    leaves, structure = jax.tree.flatten(args)

    def run(*given: Any) -> list[Any]:
        arrays = iter(given)
        full = [next(arrays) if is_input(leaf) else leaf for leaf in leaves]
        outputs = function(*jax.tree.unflatten(structure, full))
        return [leaf for leaf in jax.tree.leaves(outputs) if is_array(leaf)]

    closed = jax.make_jaxpr(run)(*(leaf for leaf in leaves if is_input(leaf)))
    hashes = [np.asarray(fingerprint(const)).tolist() for const in closed.consts]
    return _ADDRESS.sub("", str(closed)), hashes
