"""Transforms and rules that print as the call that made them.

A transform is a pair of functions, and so is a rule: normally it prints as two addresses, which
say nothing in a log, a notebook or a failing test. The result of a factory under ``@shown`` prints
as ``guard(optax.chain(...), rules.global_norm(1.0))``: the arguments as they were passed, without
the defaults. Nothing is formatted until it is printed.
"""

import functools
import reprlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple, TypeVar, cast

import jax
import numpy as np
import optax

Factory = TypeVar("Factory", bound=Callable[..., tuple[Any, ...]])


def shown(factory: Factory) -> Factory:
    """Make the ``NamedTuple`` that a factory returns print as the call that made it.

    The result is an instance of a subclass of the original type, equal to the original and accepted
    in its place everywhere. If a factory returns the result of another one, the outer call is
    shown. The result of ``_replace`` comes from no call, so it prints as a plain ``NamedTuple``.

    Args:
      factory: a public function that makes a transform or a rule.

    Returns:
      A function with the signature, the types and the docstring of ``factory``.

    Example:
      >>> import optax
      >>> import gradstable as gs
      >>> gs.guard(optax.sgd(0.1, momentum=0.9), gs.rules.log_mad(clip_at=4.0))
      guard(optax.chain(...), rules.log_mad(clip_at=4.0))
    """

    @functools.wraps(factory)
    def make(*args: Any, **kwargs: Any) -> tuple[Any, ...]:
        made = factory(*args, **kwargs)
        base = made.base if isinstance(made, _Shown) else type(made)
        within = made.call if isinstance(made, _Shown) else None
        return _restore(base, made, _Call(make, args, kwargs, within))

    return cast("Factory", make)


class _Call(NamedTuple):
    """The call of a factory, with the arguments that were passed."""

    factory: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    within: "_Call | None" = None  # the call whose result the factory returned

    @property
    def name(self) -> str:
        """The factory as users type it, with the room that publishes it."""
        _, _, *room, _ = self.factory.__module__.split(".")
        return ".".join([*room, self.factory.__name__])


def factories_in(made: object) -> Iterator[str]:
    """Yield the names of the factories that a transform is made by, as far as calls show it.

    What was passed to functions of optax, such as ``optax.chain``, is not shown.
    """
    call = made.call if isinstance(made, _Shown) else None
    while call is not None:
        yield call.factory.__name__
        for given in (*call.args, *call.kwargs.values()):
            yield from factories_in(given)
        call = call.within


class _Shown:
    """The mixin that precedes a ``NamedTuple`` in the bases of a shown class."""

    base: type[Any]
    call: _Call | None = None

    def __repr__(self) -> str:
        if self.call is None:
            return super().__repr__()
        given = [_SHORT.repr(value) for value in self.call.args]
        given += [f"{name}={_SHORT.repr(value)}" for name, value in self.call.kwargs.items()]
        return f"{self.call.name}({', '.join(given)})"

    def __reduce__(self) -> tuple[Any, ...]:
        # The class was made at run time, and a copy must be able to find it.
        return _restore, (self.base, tuple(cast("Iterable[Any]", self)), self.call)


@functools.cache
def _class_of(base: type[Any]) -> type[Any]:
    # Named after the base, since NamedTuples print this name.
    return type(base.__name__, (_Shown, base), {"base": base, "__doc__": base.__doc__})


def _restore(base: type[Any], fields: Iterable[Any], call: _Call | None) -> tuple[Any, ...]:
    made = _class_of(base)._make(fields)
    made.call = call
    return made


# How users type dtypes.
_ALIASES = {"jax.numpy": "jnp.", "numpy": "np."}


class _Short(reprlib.Repr):
    """Format arguments in a few characters, and never with the content of an array."""

    def __init__(self) -> None:
        super().__init__()
        self.maxstring = self.maxother = 60

    def repr_instance(self, x: Any, level: int) -> str:
        """Return the text of anything but a container, string or integer."""
        if isinstance(x, _Shown):
            return repr(x)
        if isinstance(x, (jax.Array, np.ndarray)):
            return f"<{x.dtype}{list(x.shape)}>"
        for role, kind in (("update", "transform"), ("decide", "rule")):
            if isinstance(x, tuple) and hasattr(x, role):
                return _origin(getattr(x, role)) or f"<{kind}>"
        if callable(x):
            name = getattr(x, "__name__", f"<{type(x).__name__}>")
            product = _module_of(x).startswith(("optax", "gradstable"))
            return (product and _origin(x)) or _ALIASES.get(_module_of(x), "") + name
        return super().repr_instance(x, level)


_SHORT = _Short()


def _origin(function: Callable[..., Any]) -> str:
    """Return the factory in which a function was defined, as a call; empty if there is none."""
    factory, inside, _ = getattr(function, "__qualname__", "").partition(".")
    if not inside:
        return ""
    if not _module_of(function).startswith("optax"):
        return f"{factory}(...)"
    rooms = {"optax": optax, "optax.contrib": optax.contrib}
    found = (f"{name}.{factory}(...)" for name, room in rooms.items() if hasattr(room, factory))
    return next(found, "")


def _module_of(function: Callable[..., Any]) -> str:
    return getattr(function, "__module__", None) or ""
