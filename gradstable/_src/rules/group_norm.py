"""AGGC: keep groups of leaves near the running mean of their own norms."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias, cast

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from gradstable._src.core.checks import check_number
from gradstable._src.core.numerics import increment, smallest_norm_in
from gradstable._src.core.reasons import Reason
from gradstable._src.core.shown import shown
from gradstable._src.core.types import Measure, Verdict
from gradstable._src.core.units import leaf_names
from gradstable._src.rules.protocol import Rule

Groups: TypeAlias = Callable[[str], str] | Mapping[Any, Any] | Sequence[Any]


class GroupNormState(NamedTuple):
    """State of ``group_norm``."""

    norms_seen: jax.Array  # shape=(), dtype=jnp.int32, steps seen
    group_of_leaf: jax.Array  # shape=(L,), dtype=jnp.int32, number of the group of a leaf
    mean_norms: jax.Array  # shape=(L,), dtype=jnp.float32, running norm of the group of a leaf


@shown
def group_norm(
    *,
    groups: Groups | None = None,
    high: ArrayLike = 0.6,
    low: ArrayLike = 0.95,
    late_high: ArrayLike = 0.7,
    late_low: ArrayLike = 0.98,
    total_steps: int | None = None,
    switch: ArrayLike = 0.4,
    transition: ArrayLike = 0.3,
    decay: ArrayLike = 0.95,
    min_norm: ArrayLike = 0.01,
    raise_small: bool = False,
    min_scale: ArrayLike = 0.9,
    max_scale: ArrayLike = 1.1,
) -> Rule:
    r"""Keep the norm of every group of leaves near its own running mean (AGGC).

    Use it in fine-tuning, where kinds of modules (queries, values, adapters) have norms of
    different sizes and a global clip lets the largest shrink all the others. With the norm
    :math:`n` of a group, its running mean :math:`S`, :math:`U = a_{hi} S` and
    :math:`L = \max(n_{min}, a_{lo} S)`,

    .. math:: c = \begin{cases} \max(U / n, c_{min}) & n > U > 0 \\
                  \min(L / n, c_{max}) & n < L \text{ (if raise\_small)} \\
                  1 & \text{else} \end{cases}
              \qquad S \leftarrow \beta S + (1 - \beta) c\, n

    where :math:`a_{hi}` and :math:`a_{lo}` move linearly to their late values once a fraction
    ``switch`` of ``total_steps`` has passed, over a further fraction ``transition``.

    Known weakness: this is not a guard against spikes. The published bound :math:`c_{min} = 0.9`
    lets a spike of 1000 times the usual norm pass at 900 times, and 97 % of healthy steps (norms
    that scatter by 30 %, log-normal) are scaled by 0.9. Without the bound (``min_scale=0``) the
    mean can only fall, since :math:`a_{hi} \le 1`: it begins at :math:`1 - \beta` of the first
    norm, and after 100 healthy steps gradients are scaled to 0.4 % of their size. Combine it with
    another rule, as in ``gs.guard(tx, gs.rules.group_norm(), gs.rules.log_mad())``.

    Args:
      groups: a function from the path of a leaf, such as ``"['layers']['query']['kernel']"``, to
        the name of its group; or a tree of names like the parameters. Default ``None``: the
        module that owns the leaf, such as ``query``, ignoring numbers.
      high: :math:`a_{hi}` at the start, dimensionless, > 0. Default 0.6.
      low: :math:`a_{lo}` at the start, dimensionless, >= 0. Default 0.95.
      late_high: :math:`a_{hi}` at the end, > 0. Default 0.7.
      late_low: :math:`a_{lo}` at the end, >= 0. Default 0.98.
      total_steps: length of the run, >= 1. Default ``None``: both keep their initial values.
      switch: fraction of the run after which they begin to move, in [0, 1]. Default 0.4.
      transition: fraction of the run over which they move, in (0, 1]. Default 0.3.
      decay: :math:`\beta`, in [0, 1). Default 0.95.
      min_norm: :math:`n_{min}`, in units of the gradient, >= 0. Default 0.01.
      raise_small: whether to raise norms below :math:`L`. Default ``False``.
      min_scale: :math:`c_{min}`, in [0, 1]; 0: no bound. Default 0.9.
      max_scale: :math:`c_{max}`, >= 1; can be infinite. Default 1.1. This and all defaults above
        are those of the authors' scripts for Llama 2.

    Returns:
      A ``Rule`` with two scalars per leaf, ``GroupNormState``. It never rejects. Its scale can be
      above 1.

    Raises:
      TypeError: if ``groups`` is of the wrong type, or a name is not a string.
      ValueError: if a number is out of range; in ``init``, if the tree of names does not match
        the parameters.

    Example:
      >>> import optax
      >>> import gradstable as gs
      >>> rule = gs.rules.group_norm(groups=lambda path: "norm" if "scale" in path else "rest")
      >>> tx = gs.guard(optax.adamw(2e-5), rule, gs.rules.log_mad())

    Source:
      Li, Wu, Chang, "AGGC: Adaptive Group Gradient Clipping for Stabilizing Large Language
      Model Training", 2026, arXiv:2601.11864, and its code.
    """
    _check(high, low, late_high, late_low, total_steps, switch, transition)
    check_number("decay", decay, at_least=0.0, below=1.0)
    check_number("min_norm", min_norm, at_least=0.0)
    check_number("min_scale", min_scale, at_least=0.0, at_most=1.0)
    check_number("max_scale", max_scale, at_least=1.0, finite=False)

    def init(params: Any) -> GroupNormState:
        group = jnp.asarray(_numbers(groups, params), jnp.int32)
        return GroupNormState(
            norms_seen=jnp.zeros((), jnp.int32),
            group_of_leaf=group,
            mean_norms=jnp.zeros(group.shape, jnp.float32),
        )

    def late(count: jax.Array) -> ArrayLike:
        if total_steps is None:
            return 0.0
        progress = count.astype(jnp.float32) / total_steps
        return jnp.clip((progress - switch) / transition, 0.0, 1.0)

    def decide(measure: Measure, state: GroupNormState, **_: Any) -> tuple[Verdict, GroupNormState]:
        seen, group, mean = state
        alpha, norms = late(seen), _norms_of_groups(measure.leaf_norms, group)
        upper = (high + alpha * (jnp.subtract(late_high, high))) * mean
        lower = jnp.maximum(min_norm, (low + alpha * jnp.subtract(late_low, low)) * mean)
        there = norms > smallest_norm_in(norms.dtype)
        some = jnp.where(there, norms, 1.0)
        shrink = (norms > upper) & (upper > 0)
        scale = jnp.where(shrink, jnp.maximum(upper / some, min_scale), 1.0)
        if raise_small:
            lift = ~shrink & there & (norms < lower)
            scale = jnp.where(lift, jnp.minimum(lower / some, max_scale), scale)
        verdict = Verdict.of(
            scale=scale, reason=jnp.where(jnp.any(scale != 1.0), Reason.GROUP_SCALED, Reason.OK)
        )
        mean = jnp.multiply(decay, mean) + jnp.multiply(1.0 - decay, scale * norms)
        return verdict, state._replace(norms_seen=increment(seen), mean_norms=mean)

    return Rule(init=init, decide=decide)


def _check(
    high: ArrayLike,
    low: ArrayLike,
    late_high: ArrayLike,
    late_low: ArrayLike,
    total_steps: int | None,
    switch: ArrayLike,
    transition: ArrayLike,
) -> None:
    check_number("high", high, above=0.0)
    check_number("low", low, at_least=0.0)
    check_number("late_high", late_high, above=0.0)
    check_number("late_low", late_low, at_least=0.0)
    if total_steps is not None:
        check_number("total_steps", total_steps, at_least=1)
    check_number("switch", switch, at_least=0.0, at_most=1.0)
    check_number("transition", transition, above=0.0, at_most=1.0)


def module_of(path: str) -> str:
    """Return the module that owns a leaf: the last name before that of the leaf itself."""
    names = [name for name in leaf_names(path) if not name.isdigit()]
    return names[-2] if len(names) > 1 else "".join(names)


def _numbers(groups: Groups | None, params: object) -> list[int]:
    """Return the group number of every leaf, in order of first occurrence."""
    flat, structure = jax.tree_util.tree_flatten_with_path(params)
    paths = [jax.tree_util.keystr(path) for path, _ in flat]
    if groups is None or callable(groups):
        names = [cast("Any", groups or module_of)(path) for path in paths]
    else:
        names, given = jax.tree.flatten(groups)
        if given != structure:
            msg = f"groups must be a tree of names like the parameters, {structure}, got {given}"
            raise ValueError(msg)
    for path, name in zip(paths, names, strict=True):
        if not isinstance(name, str):
            msg = f"the group of the leaf {path} must be a string, got {name!r}"
            raise TypeError(msg)
    order = {name: number for number, name in enumerate(dict.fromkeys(names))}
    return [order[name] for name in names]


def _norms_of_groups(leaf_norms: jax.Array, group: jax.Array) -> jax.Array:
    """Return, for every leaf, the norm of all leaves in its group; no square can overflow."""
    # Only the state knows the groups, so each leaf checks all: cheap compared with gradients.
    mine = jnp.where(group[:, None] == group[None, :], leaf_norms[None, :], 0.0)
    largest = jnp.max(mine, axis=1, initial=0.0)
    unit = jnp.where(largest > 0, largest, 1.0)
    ratios = mine / unit[:, None]
    return unit * jnp.sqrt(jnp.sum(ratios * ratios, axis=1))
