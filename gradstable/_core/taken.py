"""Which extra arguments are taken: what Python's own check cannot tell behind ``**extra_args``.

optax hands extra arguments through chains and wrappers, and a transform that does not know a name
drops it, so a misspelled one vanishes. What a function takes can be read off its code: its
parameters, and the strings in it (``extra_args["x"]``), likewise for all it holds in its closure,
and, further off, for the functions that it calls by name.
"""

import difflib
import functools
import types
from collections.abc import Iterable, Mapping
from typing import Any

# What transforms of optax take; a loop may pass them to any optimizer, as optax's own examples do.
_USUAL = frozenset({"value", "grad", "value_fn"})
_FOREIGN = frozenset({"jax", "jaxlib", "numpy", "builtins", "typing"})


def check_taken(
    extra_args: Mapping[str, Any], function: object, *, own: Iterable[str], factory: str
) -> None:
    """Raise if an extra argument is taken by nobody, or is a near miss of one that is.

    Args:
      extra_args: what was passed by keyword beyond the arguments of the wrapper.
      function: what they are handed on to. Functions among the arguments take some as well.
      own: the names that the wrapper itself takes.
      factory: what the wrapper is called in messages.

    Raises:
      TypeError: with the name, and what may have been meant.
    """
    roots = [function, *(value for value in extra_args.values() if callable(value))]
    for name in extra_args.keys() - _USUAL - frozenset(own):
        if takes(roots, name):
            continue
        near = difflib.get_close_matches(name.lower(), own, n=1, cutoff=0.75)
        if not near and takes(roots, name, by_name=True):
            continue
        hint = f". Did you mean {near[0]}=?" if near else ". Leave it out, or mend its name"
        msg = f"{factory} got {name}=, which neither it nor what it wraps takes{hint}"
        raise TypeError(msg)


def takes(roots: Iterable[object], name: str, *, by_name: bool = False) -> bool:
    """Whether a function takes an argument, or one that it holds does.

    Args:
      roots: functions, or what holds some.
      name: of the argument.
      by_name: whether to follow functions and classes that are called by their name as well.
    """
    seen: set[int] = set()
    waiting = list(roots)
    while waiting:
        thing = waiting.pop()
        if id(thing) in seen or isinstance(thing, (str, bytes, int, float, type(None))):
            continue
        seen.add(id(thing))
        if isinstance(thing, types.CodeType):
            count = thing.co_argcount + thing.co_kwonlyargcount
            if name in thing.co_varnames[:count] or name in _strings(thing):
                return True
            waiting += [const for const in thing.co_consts if isinstance(const, types.CodeType)]
        else:
            waiting += _parts(thing, by_name=by_name)
    return False


def _strings(code: types.CodeType) -> Iterable[str]:
    return (const for const in code.co_consts if isinstance(const, str))


def _parts(thing: Any, *, by_name: bool) -> list[Any]:
    """Return what may hold a function that is called by this one."""
    if isinstance(thing, types.FunctionType):
        cells = [cell.cell_contents for cell in thing.__closure__ or () if _is_filled(cell)]
        defaults = [*(thing.__defaults__ or ()), *(thing.__kwdefaults__ or {}).values()]
        called = _called(thing) if by_name else []
        return [thing.__code__, *cells, *defaults, getattr(thing, "__wrapped__", None), *called]
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


def _called(function: types.FunctionType) -> list[Any]:
    """Return the functions and classes to which the names in a function's code lead."""
    found: list[Any] = []
    codes = [function.__code__]
    while codes:
        code = codes.pop()
        codes += [const for const in code.co_consts if isinstance(const, types.CodeType)]
        for name in code.co_names:
            near = function.__globals__.get(name)
            # base.with_extra_args_support: the module is one name, what is in it another.
            modules = [near] if isinstance(near, types.ModuleType) else []
            found += [near] if isinstance(near, types.FunctionType) else []
            found += [
                getattr(module, other)
                for module in modules
                for other in code.co_names
                if isinstance(getattr(module, other, None), types.FunctionType)
            ]
    return [called for called in found if not _is_foreign(called)]


def _is_foreign(thing: Any) -> bool:
    return str(getattr(thing, "__module__", "")).partition(".")[0] in _FOREIGN


def _is_filled(cell: types.CellType) -> bool:
    try:
        cell.cell_contents  # noqa: B018
    except ValueError:
        return False
    return True
