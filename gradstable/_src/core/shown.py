"""Transforms and rules that print as the call that made them.

A transform is a pair of functions, and so is a rule: by itself it prints as two addresses, which
tell nothing in a log, a notebook or a failing test. What a factory under ``@shown`` returns prints
as ``guard(optax.chain(...), rules.global_norm(1.0))``: the arguments as they were given, and no
default that was not. Nothing is formatted before it is asked for.
"""

import functools
import reprlib
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple, TypeVar, cast

import jax
import numpy as np
import optax

Factory = TypeVar("Factory", bound=Callable[..., tuple[Any, ...]])


def shown(factory: Factory) -> Factory:
    """Let what a factory returns, a ``NamedTuple``, print as the call that made it.

    It is then an instance of a subclass of what it was, equal to it and as good as it in every
    place where that is asked for. A factory that ends in a call of another one shows the outer
    call. ``_replace`` returns what nobody called: that prints as the ``NamedTuple`` it is.

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
        return _restore(base, made, _Call(make, args, kwargs))

    return cast("Factory", make)


class _Call(NamedTuple):
    """The call of a factory, with the arguments that were given."""

    factory: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    @property
    def name(self) -> str:
        """The factory as users type it, with the room that publishes it."""
        _, _, *room, _ = self.factory.__module__.split(".")
        return ".".join([*room, self.factory.__name__])


class _Shown:
    """What stands before a ``NamedTuple`` in the bases of a class of shown things."""

    base: type[Any]
    call: _Call | None = None

    def __repr__(self) -> str:
        if self.call is None:
            return super().__repr__()
        given = [_SHORT.repr(value) for value in self.call.args]
        given += [f"{name}={_SHORT.repr(value)}" for name, value in self.call.kwargs.items()]
        return f"{self.call.name}({', '.join(given)})"

    def __reduce__(self) -> tuple[Any, ...]:
        # The class was made at run time, and a copy has to find it again.
        return _restore, (self.base, tuple(cast("Iterable[Any]", self)), self.call)


@functools.cache
def _class_of(base: type[Any]) -> type[Any]:
    # The name is that of the base, as NamedTuples print it.
    return type(base.__name__, (_Shown, base), {"base": base, "__doc__": base.__doc__})


def _restore(base: type[Any], fields: Iterable[Any], call: _Call | None) -> tuple[Any, ...]:
    made = _class_of(base)._make(fields)
    made.call = call
    return made


# Dtypes as they are typed.
_ALIASES = {"jax.numpy": "jnp.", "numpy": "np."}


class _Short(reprlib.Repr):
    """Arguments in a few characters, and never with the content of an array."""

    def __init__(self) -> None:
        super().__init__()
        self.maxstring = self.maxother = 60

    def repr_instance(self, x: Any, level: int) -> str:
        """Return the text of what is no container, string or integer."""
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
