"""Which argument of a program an equation deep inside of it depends on most directly."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from gradstable._src.core.equations import is_variable
from gradstable._src.walk.walk import bare

if TYPE_CHECKING:
    from jax.extend.core import Jaxpr, JaxprEqn, Var

    from gradstable._src.walk.walk import Place


def nearest_argument(
    jaxpr: Jaxpr, eqn: JaxprEqn, places: tuple[Place, ...], wanted: Sequence[int]
) -> int | None:
    """Return which of the wanted arguments is the fewest equations away, or ``None``.

    Args:
      jaxpr: the program.
      eqn: the equation.
      places: what it is inside of, from the outside in.
      wanted: numbers of arguments of the program.
    """
    inside = [jaxpr, *(bare(place.program) for place in places)]
    found = _variables(eqn)
    for depth in range(len(inside) - 1, -1, -1):
        goals = {var: number for number, var in enumerate(inside[depth].invars)}
        reached = [goals[var] for var in _in_order(inside[depth], found) if var in goals]
        if depth == 0:
            return next((number for number in reached if number in wanted), None)
        outer = places[depth - 1]
        offset = len(outer.eqn.invars) - len(inside[depth].invars)
        atoms = [outer.eqn.invars[number + offset] for number in reached]
        found = [atom for atom in atoms if is_variable(atom)]
    return None


def _in_order(jaxpr: Jaxpr, start: Sequence[Var]) -> list[Var]:
    """Return all variables that some depend on, the fewest equations away first."""
    made_by: dict[Any, JaxprEqn] = {var: eqn for eqn in jaxpr.eqns for var in eqn.outvars}
    waiting, seen = deque(start), dict.fromkeys(start)
    while waiting:
        eqn = made_by.get(waiting.popleft())
        for var in _variables(eqn) if eqn is not None else ():
            if var not in seen:
                seen[var] = None
                waiting.append(var)
    return list(seen)


def _variables(eqn: JaxprEqn) -> list[Var]:
    return [atom for atom in eqn.invars if is_variable(atom)]
