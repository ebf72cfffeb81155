"""Misspelled extra arguments, which vanish in ``**extra_args``.

optax passes extra arguments through chains and wrappers, and a transform that does not know a name
drops it. That must stay so, since training loops pass arguments that only some optimizers take.
But a near miss of a known name is a mistake, unless something inside takes exactly that name. What
a function takes can be read off its code: its parameters, and the strings in it
(``extra_args["x"]``). The same goes for every object that it holds.
"""

import difflib
import functools
import types
from collections.abc import Iterable, Mapping
from typing import Any

# An argument of optax's line searches; a loop can pass it to any optimizer.
_USUAL = frozenset({"value_fn"})
_FOREIGN = frozenset({"jax", "jaxlib", "numpy", "builtins", "typing"})


def check_taken(
    extra_args: Mapping[str, Any], function: object, *, own: Iterable[str], factory: str
) -> None:
    """Raise if an extra argument is a near miss of a known one, and nothing takes it.

    Args:
      extra_args: what was passed by keyword beyond the arguments of the wrapper.
      function: what they are passed on to. Functions among the arguments can take some as well.
      own: the names that the wrapper itself takes.
      factory: the name of the wrapper in messages.

    Raises:
      TypeError: with the name, and the name that was probably meant.
    """
    own = tuple(own)
    roots = [function, *(value for value in extra_args.values() if callable(value))]
    for name in extra_args.keys() - _USUAL - set(own):
        near = difflib.get_close_matches(name.lower(), own, n=1, cutoff=0.75)
        if near and not takes(roots, name):
            msg = (
                f"{factory} got {name}=, which neither it nor what it wraps takes. Did you mean "
                f"{near[0]}=?"
            )
            raise TypeError(msg)


def takes(roots: Iterable[object], name: str) -> bool:
    """Whether a function, or one that it holds, takes an argument.

    Args:
      roots: functions, or objects that hold some.
      name: the name of the argument.
    """
    seen: dict[int, object] = {}  # keeps objects alive, so that no other can get the same id
    waiting = list(roots)
    while waiting:
        thing = waiting.pop()
        if id(thing) in seen or isinstance(thing, (str, bytes, int, float, type(None))):
            continue
        seen[id(thing)] = thing
        if isinstance(thing, types.CodeType):
            count = thing.co_argcount + thing.co_kwonlyargcount
            if name in thing.co_varnames[:count] or name in _strings(thing):
                return True
            waiting += [const for const in thing.co_consts if isinstance(const, types.CodeType)]
        else:
            waiting += _parts(thing)
    return False


def _strings(code: types.CodeType) -> Iterable[str]:
    return (const for const in code.co_consts if isinstance(const, str))


def _parts(thing: Any) -> list[Any]:
    """Return the objects that could hold a function that this one calls."""
    if isinstance(thing, types.FunctionType):
        cells = [cell.cell_contents for cell in thing.__closure__ or () if _is_filled(cell)]
        defaults = [*(thing.__defaults__ or ()), *(thing.__kwdefaults__ or {}).values()]
        return [thing.__code__, *cells, *defaults, getattr(thing, "__wrapped__", None)]
    if isinstance(thing, types.MethodType):
        return [thing.__func__, thing.__self__]
    if isinstance(thing, functools.partial):
        return [thing.func, *thing.args, *thing.keywords.values()]
    if isinstance(thing, Mapping):
        return list(thing.values())
    if isinstance(thing, (tuple, list, set, frozenset)):
        return list(thing)
    if isinstance(thing, (types.ModuleType, type)) or _is_foreign(type(thing)):
        return [getattr(thing, "__wrapped__", None)]
    call = thing.__call__ if callable(thing) else None
    return [call, *getattr(thing, "__dict__", {}).values()]


def _is_foreign(thing: Any) -> bool:
    return str(getattr(thing, "__module__", "")).partition(".")[0] in _FOREIGN


def _is_filled(cell: types.CellType) -> bool:
    try:
        cell.cell_contents  # noqa: B018
    except ValueError:
        return False
    return True
