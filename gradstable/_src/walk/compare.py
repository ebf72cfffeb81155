"""Whether two traces of a function are the same program."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from itertools import zip_longest
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gradstable._src.core.equations import is_variable
from gradstable._src.core.keys import is_key
from gradstable._src.walk.walk import bare

if TYPE_CHECKING:
    from jax.extend.core import JaxprEqn

# Other parameters, such as functions, are new in every trace.
_VALUES = (bool, int, float, complex, str, bytes, type(None), np.dtype, enum.Enum)


class Difference(NamedTuple):
    """Where two programs differ.

    Attributes:
      eqn: the first equation; ``None`` if it is only a constant or a result.
    """

    eqn: JaxprEqn | None


def first_difference(one: Any, two: Any) -> Difference | None:
    """Return where a program is another than a second one, with the numbers they contain.

    ``None``: they are the same.
    """
    for a, b in zip_longest(bare(one).eqns, bare(two).eqns):
        if a is None or b is None or not _same_equation(a, b):
            inner = _inner_difference(a, b) if a is not None and b is not None else None
            return inner or Difference(a or b)
    one_values, two_values = _constants(one), _constants(two)
    return None if _same(one_values, two_values) else Difference(None)


def _constants(program: Any) -> list[Any]:
    """Return the numbers that a program contains, apart from those in its equations."""
    return [*getattr(program, "consts", ()), *_literals(bare(program).outvars)]


def _literals(atoms: Sequence[Any]) -> list[Any]:
    return [None if is_variable(atom) else atom.val for atom in atoms]


def _same_equation(a: Any, b: Any) -> bool:
    return (
        a.primitive is b.primitive
        and [var.aval for var in a.outvars] == [var.aval for var in b.outvars]
        and _same(_literals(a.invars), _literals(b.invars))
        and _same(a.params, b.params)
    )


def _same(a: Any, b: Any) -> bool:
    if a is b:
        return True
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(_same(a[name], b[name]) for name in a)
    if isinstance(a, (tuple, list)) and isinstance(b, (tuple, list)):
        return len(a) == len(b) and all(map(_same, a, b))
    if _is_program(a) and _is_program(b):
        return first_difference(a, b) is None
    if isinstance(a, (np.ndarray, np.generic, jax.Array)):
        return _same_arrays(a, b)
    if isinstance(a, float) and a != a:
        return b != b
    return not (isinstance(a, _VALUES) and isinstance(b, _VALUES)) or a == b


def _same_arrays(a: Any, b: Any) -> bool:
    if jnp.shape(a) != jnp.shape(b) or jnp.result_type(a) != jnp.result_type(b):
        return False
    if is_key(a):
        a, b = jax.random.key_data(a), jax.random.key_data(b)
    return np.asarray(a).tobytes() == np.asarray(b).tobytes()


def _is_program(value: Any) -> bool:
    return hasattr(bare(value), "eqns")


def _inner_difference(a: Any, b: Any) -> Difference | None:
    """Return the same, inside of two equations."""
    for name in a.params:
        pair = [_programs(eqn.params.get(name)) for eqn in (a, b)]
        for one, two in zip(*pair, strict=False):
            found = first_difference(one, two)
            if found is not None and found.eqn is not None:
                return found
    return None


def _programs(value: Any) -> list[Any]:
    each = value if isinstance(value, (tuple, list)) else (value,)
    return [one for one in each if _is_program(one)]
