"""Run a program equation by equation, outside of ``jit``, and show each to a visitor."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import jax.numpy as jnp

from gradstable._src.core.equations import inner_jaxpr, is_variable

if TYPE_CHECKING:
    from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn


class Place(NamedTuple):
    """One equation around those that are run: a call, a loop or a branch.

    Attributes:
      eqn: the equation.
      iteration: which pass of a loop, which branch; ``None`` for a call.
    """

    eqn: JaxprEqn
    iteration: int | None = None

    @property
    def program(self) -> Any:
        """The program that was entered: of a ``while``, its body."""
        params = self.eqn.params
        if "branches" in params:
            return params["branches"][self.iteration or 0]
        return next(
            params[name] for name in ("jaxpr", "body_jaxpr", "call_jaxpr") if name in params
        )


class Visitor(Protocol):
    """Looks at a program while it runs."""

    def equation(
        self, eqn: JaxprEqn, inputs: Sequence[Any], outputs: list[Any], places: tuple[Place, ...]
    ) -> list[Any]:
        """Return the outputs of an equation, or what the program is to go on with instead."""
        ...

    def slice(self, whole: Any, part: Any, index: int) -> None:
        """Look at the part of an array that a pass of a loop gets."""
        ...

    def stack(self, parts: Sequence[Any], whole: Any) -> None:
        """Look at the array that what the passes of a loop have made is put together in."""
        ...


def walk(closed: ClosedJaxpr, args: Sequence[Any], visitor: Visitor) -> list[Any]:
    """Return the results of a program, after a visitor has seen each of its equations.

    Calls, loops and branches are entered, derivatives included: what is computed is what ``jit``
    would compute, except for the rounding of what XLA fuses. An equation with programs of another
    kind inside (``shard_map``, a kernel, a callback) is a single one.

    Args:
      closed: the program, from ``jax.make_jaxpr``.
      args: its arguments.
      visitor: is shown each equation after it was run.
    """
    return _run(closed.jaxpr, closed.consts, args, visitor, ())


def _run(
    jaxpr: Jaxpr,
    consts: Sequence[Any],
    args: Iterable[Any],
    visitor: Visitor,
    places: tuple[Place, ...],
) -> list[Any]:
    env = dict(zip((*jaxpr.constvars, *jaxpr.invars), (*consts, *args), strict=True))

    def read(atom: Any) -> Any:
        return env[atom] if is_variable(atom) else atom.val

    for eqn, unused in zip(jaxpr.eqns, _last_read(jaxpr), strict=True):
        inputs = [read(atom) for atom in eqn.invars]
        enter = _ENTER.get(eqn.primitive.name, _call if inner_jaxpr(eqn) is not None else None)
        if enter is None or eqn.primitive.name == "shard_map":
            outputs = visitor.equation(eqn, inputs, _bind(eqn, inputs), places)
        else:
            outputs = enter(eqn, inputs, visitor, places)
        env.update(zip(eqn.outvars, outputs, strict=True))
        for var in unused:
            env.pop(var, None)
    return [read(atom) for atom in jaxpr.outvars]


def _bind(eqn: JaxprEqn, inputs: Sequence[Any]) -> list[Any]:
    with eqn.ctx.manager:
        result = eqn.primitive.bind(*inputs, **eqn.primitive.get_bind_params(eqn.params))
    return list(result) if eqn.primitive.multiple_results else [result]


def _last_read(jaxpr: Jaxpr) -> list[list[Any]]:
    """Return the variables that are not read after each equation: memory for a large model."""
    kept = {atom for atom in jaxpr.outvars if is_variable(atom)}
    found: list[list[Any]] = []
    for eqn in reversed(jaxpr.eqns):
        last = {atom for atom in (*eqn.invars, *eqn.outvars) if is_variable(atom)} - kept
        kept |= last
        found.append(list(last))
    return found[::-1]


def _closed(program: Any) -> tuple[Jaxpr, Sequence[Any]]:
    return bare(program), getattr(program, "consts", ())


def bare(program: Any) -> Jaxpr:
    """Return a program without its constants."""
    return getattr(program, "jaxpr", program)


def _call(
    eqn: JaxprEqn, inputs: Sequence[Any], visitor: Visitor, places: tuple[Place, ...]
) -> list[Any]:
    place = Place(eqn)
    return _run(*_closed(place.program), inputs, visitor, (*places, place))


def _cond(
    eqn: JaxprEqn, inputs: Sequence[Any], visitor: Visitor, places: tuple[Place, ...]
) -> list[Any]:
    place = Place(eqn, min(max(int(inputs[0]), 0), len(eqn.params["branches"]) - 1))
    return _run(*_closed(place.program), inputs[1:], visitor, (*places, place))


def _while(
    eqn: JaxprEqn, inputs: Sequence[Any], visitor: Visitor, places: tuple[Place, ...]
) -> list[Any]:
    num_cond, num_body = eqn.params["cond_nconsts"], eqn.params["body_nconsts"]
    of_cond, of_body = inputs[:num_cond], inputs[num_cond : num_cond + num_body]
    carry, number = list(inputs[num_cond + num_body :]), 0
    while True:
        place = Place(eqn, number)
        where = (*places, place)
        (goes_on,) = _run(*_closed(eqn.params["cond_jaxpr"]), (*of_cond, *carry), visitor, where)
        if not goes_on:
            return carry
        carry = _run(*_closed(place.program), (*of_body, *carry), visitor, where)
        number += 1


def _scan(
    eqn: JaxprEqn, inputs: Sequence[Any], visitor: Visitor, places: tuple[Place, ...]
) -> list[Any]:
    num_consts, num_carry = eqn.params["num_consts"], eqn.params["num_carry"]
    length = eqn.params["length"]
    consts = inputs[:num_consts]
    carry, each = (
        list(inputs[num_consts : num_consts + num_carry]),
        inputs[num_consts + num_carry :],
    )
    stacked: list[list[Any]] = []
    order = range(length)[::-1] if eqn.params["reverse"] else range(length)
    for number in order:
        parts = [whole[number] for whole in each]
        for whole, part in zip(each, parts, strict=True):
            visitor.slice(whole, part, number)
        place = Place(eqn, number)
        given = (*consts, *carry, *parts)
        results = _run(*_closed(place.program), given, visitor, (*places, place))
        carry = results[:num_carry]
        stacked.append(results[num_carry:])
    if not length:
        shapes: list[Any] = [var.aval for var in eqn.outvars[num_carry:]]
        return carry + [jnp.zeros(shape.shape, shape.dtype) for shape in shapes]
    in_order = stacked[::-1] if eqn.params["reverse"] else stacked
    for column in zip(*in_order, strict=True):
        whole = jnp.stack(column)
        visitor.stack(column, whole)
        carry.append(whole)
    return carry


_ENTER: dict[str, Callable[..., list[Any]]] = {"cond": _cond, "while": _while, "scan": _scan}
