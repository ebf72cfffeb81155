"""The entry of a public name: how it is tested, and what the catalog says about it."""

import dataclasses
import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
import optax

# Values that no argument accepts; `numbers` of an entry adds those that its range excludes.
NEVER: tuple[Any, ...] = (np.nan, "0.1", None, True, [0.1], np.array([0.1]), 1j, object())
BELOW_ZERO, NOT_POSITIVE = (-1.0,), (0.0, -1.0)
DECAY, FRACTION = (-0.1, 1.0, 1.5), (0.0, -0.1, 1.0, 1.5)


@dataclasses.dataclass(frozen=True)
class Case:
    """A transform in one configuration; ``breaks`` says why a check cannot pass."""

    name: str
    tx: optax.GradientTransformation
    breaks: Mapping[str, str] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Entry:
    """One public name.

    Attributes:
      name: as users type it, without ``gs.``: ``"guard"``, ``"rules.zscore"``.
      family: its heading in the catalog.
      source: authors, year and arXiv id, or "Ours".
      promise: what it does for stability, one sentence without a period.
      weakness: what is known to defeat it, one sentence without a period.
      cases: configurations that go through the contract suite and the storm: usually one.
      tested_by: for a rule without its own cases: the case that contains it.
      numbers: for each numeric argument, the numbers that are rejected, in addition to ``NEVER``.
      optional: numeric arguments that can be ``None``.
      required: arguments without which it cannot be called.
    """

    name: str
    family: str
    source: str
    promise: str
    weakness: str
    cases: Sequence[Case] = ()
    tested_by: str = ""
    numbers: Mapping[str, tuple[Any, ...]] = dataclasses.field(default_factory=dict)
    optional: frozenset[str] = frozenset()
    required: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def short(self) -> str:
        """The name without its room."""
        return self.name.rpartition(".")[2]


class Bound(optax.GradientTransformationExtraArgs):
    """A transform whose ``update`` always gets some extra arguments."""

    inner: optax.GradientTransformation
    bound: dict[str, Any]


def bind(tx: optax.GradientTransformation, **bound: Any) -> optax.GradientTransformation:
    """Return a transform whose ``update`` always gets some extra arguments, such as ``value``."""
    full = optax.with_extra_args_support(tx)

    def update(updates: Any, state: Any, params: Any = None, **extra_args: Any) -> Any:
        return full.update(updates, state, params, **{**bound, **extra_args})

    made = Bound(tx.init, update)
    made.inner, made.bound = tx, bound
    return made


def for_specs(tx: optax.GradientTransformation, specs: Any) -> optax.GradientTransformation:
    """Return one of our transforms, made by the same calls, for leaves that are split by specs."""
    if isinstance(tx, Bound):
        return bind(for_specs(tx.inner, specs), **tx.bound)
    call = getattr(tx, "call", None)
    if call is None:
        return tx
    args = [_inner_for(arg, specs) for arg in call.args]
    kwargs = {name: _inner_for(arg, specs) for name, arg in call.kwargs.items()}
    if "axis_name" in inspect.signature(call.factory).parameters:
        kwargs["axis_name"] = specs
    return call.factory(*args, **kwargs)


def _inner_for(arg: Any, specs: Any) -> Any:
    return for_specs(arg, specs) if isinstance(arg, optax.GradientTransformation) else arg


def is_matrix(params: optax.Params) -> optax.Params:
    return jax.tree.map(lambda param: np.ndim(param) > 1, params)
