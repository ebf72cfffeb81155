"""Run a program equation by equation, outside of ``jit``, and show each to a visitor."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import jax.numpy as jnp

from gradstable._src.core.equations import inner_jaxpr, is_variable
from gradstable._src.walk.shards import DiffersError, Shards, Whole

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

    def move(self, before: Any, after: Any) -> None:
        """Look at an array that is laid out in another way, to enter or leave a ``shard_map``."""
        ...


def walk(closed: ClosedJaxpr, args: Sequence[Any], visitor: Visitor) -> list[Any]:
    """Return the results of a program, after a visitor has seen each of its equations.

    Calls, loops and branches are entered, derivatives included: what is computed is what ``jit``
    would compute, except for the rounding of what XLA fuses. Inside of ``shard_map``, values have a
    new first axis, with those of each device, in the order of the mesh. A loop or a branch there
    whose condition is another on another device is a single equation, as is one with programs of
    another kind inside (a kernel, a callback).

    Args:
      closed: the program, from ``jax.make_jaxpr``.
      args: its arguments.
      visitor: is shown each equation after it was run.
    """
    return _Walk(visitor, Whole(), {}).run(closed, args, ())


class _Walk:
    """A walk through the programs inside a program, all of them on the same devices."""

    def __init__(self, visitor: Visitor, layout: Whole, unused: dict[int, list[list[Any]]]) -> None:
        self._visitor = visitor
        self._layout = layout
        # By identity of the program: a loop runs it in each pass.
        self._unused = unused

    def run(self, program: Any, args: Iterable[Any], places: tuple[Place, ...]) -> list[Any]:
        """Return the results of a program inside of these places."""
        jaxpr, consts = bare(program), getattr(program, "consts", ())
        consts = [self._layout.lift(*each) for each in zip(consts, jaxpr.constvars, strict=True)]
        env = dict(zip((*jaxpr.constvars, *jaxpr.invars), (*consts, *args), strict=True))

        def read(atom: Any) -> Any:
            return env[atom] if is_variable(atom) else self._layout.lift(atom.val, atom)

        if id(jaxpr) not in self._unused:
            self._unused[id(jaxpr)] = _last_read(jaxpr)
        for eqn, unused in zip(jaxpr.eqns, self._unused[id(jaxpr)], strict=True):
            outputs = self._outputs(eqn, [read(atom) for atom in eqn.invars], places)
            env.update(zip(eqn.outvars, outputs, strict=True))
            for var in unused:
                env.pop(var, None)
        return [read(atom) for atom in jaxpr.outvars]

    def _outputs(self, eqn: JaxprEqn, inputs: list[Any], places: tuple[Place, ...]) -> list[Any]:
        name = eqn.primitive.name
        try:
            if name == "cond":
                return self._cond(eqn, inputs, places)
            if name == "while":
                return self._while(eqn, inputs, places)
            if name == "scan":
                return self._scan(eqn, inputs, places)
            if name == "shard_map":
                return self._shard_map(eqn, inputs, places)
            if inner_jaxpr(eqn) is not None:
                place = Place(eqn)
                return self.run(place.program, inputs, (*places, place))
        except DiffersError:
            pass
        return self._visitor.equation(eqn, inputs, self._layout.bind(eqn, inputs), places)

    def _shard_map(self, eqn: JaxprEqn, inputs: list[Any], places: tuple[Place, ...]) -> list[Any]:
        if isinstance(self._layout, Shards):  # one inside another
            raise DiffersError
        shards = Shards(eqn)
        given = shards.enter(inputs)
        for before, after in zip(inputs, given, strict=True):
            self._visitor.move(before, after)
        inside, place = _Walk(self._visitor, shards, self._unused), Place(eqn)
        made = inside.run(place.program, given, (*places, place))
        outputs = shards.leave(made)
        for before, after in zip(made, outputs, strict=True):
            self._visitor.move(before, after)
        return outputs

    def _cond(self, eqn: JaxprEqn, inputs: list[Any], places: tuple[Place, ...]) -> list[Any]:
        branch = self._layout.scalar(inputs[0])
        place = Place(eqn, min(max(branch, 0), len(eqn.params["branches"]) - 1))
        return self.run(place.program, inputs[1:], (*places, place))

    def _while(self, eqn: JaxprEqn, inputs: list[Any], places: tuple[Place, ...]) -> list[Any]:
        num_cond, num_body = eqn.params["cond_nconsts"], eqn.params["body_nconsts"]
        of_cond, of_body = inputs[:num_cond], inputs[num_cond : num_cond + num_body]
        carry, number = inputs[num_cond + num_body :], 0
        while True:
            place = Place(eqn, number)
            where = (*places, place)
            (goes_on,) = self.run(eqn.params["cond_jaxpr"], (*of_cond, *carry), where)
            if not self._layout.scalar(goes_on):
                return carry
            carry = self.run(place.program, (*of_body, *carry), where)
            number += 1

    def _scan(self, eqn: JaxprEqn, inputs: list[Any], places: tuple[Place, ...]) -> list[Any]:
        num_consts, num_carry = eqn.params["num_consts"], eqn.params["num_carry"]
        length, reverse = eqn.params["length"], eqn.params["reverse"]
        consts, given = inputs[:num_consts], inputs[num_consts:]
        carry, each = given[:num_carry], given[num_carry:]
        stacked: list[list[Any]] = []
        for number in range(length)[::-1] if reverse else range(length):
            parts = [self._layout.part(whole, number) for whole in each]
            for whole, part in zip(each, parts, strict=True):
                self._visitor.slice(whole, part, number)
            place = Place(eqn, number)
            results = self.run(place.program, (*consts, *carry, *parts), (*places, place))
            carry = results[:num_carry]
            stacked.append(results[num_carry:])
        if not length:
            for var in eqn.outvars[num_carry:]:
                shape: Any = var.aval
                carry.append(self._layout.lift(jnp.zeros(shape.shape, shape.dtype), var))
            return carry
        for column in zip(*(stacked[::-1] if reverse else stacked), strict=True):
            whole = self._layout.stack(column)
            self._visitor.stack(column, whole)
            carry.append(whole)
        return carry


def _last_read(jaxpr: Jaxpr) -> list[list[Any]]:
    """Return the variables that are not read after each equation: memory for a large model."""
    kept = {atom for atom in jaxpr.outvars if is_variable(atom)}
    found: list[list[Any]] = []
    for eqn in reversed(jaxpr.eqns):
        last = {atom for atom in (*eqn.invars, *eqn.outvars) if is_variable(atom)} - kept
        kept |= last
        found.append(list(last))
    return found[::-1]


def bare(program: Any) -> Jaxpr:
    """Return a program without its constants."""
    return getattr(program, "jaxpr", program)
