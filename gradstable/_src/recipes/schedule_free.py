"""Guarded schedule-free averaging of iterates."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.typing import ArrayLike, DTypeLike

from gradstable._src.core.axis_name import AxisName
from gradstable._src.core.checks import (
    check_dtype,
    check_number,
    check_rate,
    check_size,
)
from gradstable._src.core.equations import as_arrays, with_gradient
from gradstable._src.core.numerics import wide, widen
from gradstable._src.core.order import inside
from gradstable._src.core.tree_checks import check_params
from gradstable._src.core.types import Tree
from gradstable._src.core.weight_decay import check_weight_decay, decay_weights
from gradstable._src.guard import guard
from gradstable._src.moments.decay import check_decays
from gradstable._src.moments.engine import under_guard
from gradstable._src.moments.rms import scale_by_rms
from gradstable._src.recipes.recipe import published
from gradstable._src.rules.protocol import Rule, check_rules


@published
def schedule_free(
    inner: optax.GradientTransformation,
    learning_rate: optax.ScalarOrSchedule,
    *,
    b1: ArrayLike = 0.9,
    weight_lr_power: ArrayLike = 2.0,
    state_dtype: DTypeLike | None = None,
    rules: tuple[Rule, ...] = (),
    axis_name: AxisName = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Average the iterates of an optimizer instead of lowering its rate, guarded.

    Use it in place of ``optax.contrib.schedule_free``, on which it is built, around an optimizer
    without momentum; evaluate at ``gs.recipes.schedule_free_eval_params``. The guard surrounds all
    of it, so a bad gradient moves neither the iterate nor the average. The state is float32
    whatever the dtype of the parameters: in bfloat16 the sum of weights would stop growing after
    256 steps, and the average would become a moving average.

    .. math::
      z &\leftarrow z + inner(g(y)), \qquad c = \eta_{max}^p / \textstyle\sum \eta_{max}^p \\
      x &\leftarrow (1 - c)\, x + c\, z, \qquad y \leftarrow \beta_1 x + (1 - \beta_1) z

    where ``y`` are the parameters you train, ``z`` is stored, and ``x`` is computed from both.

    Known weakness: since ``x`` is not stored, bfloat16 parameters pass their rounding on to it in
    every step. After 1000 steps on a quadratic that started at 1 to 2, it is off by an RMS of
    0.001; in float32 it is right to 1e-6.

    Args:
      inner: any optax optimizer with its learning rate but without momentum (``b1=0``).
      learning_rate: the rate of ``inner``, a number >= 0 or a warm-up schedule; it weights the
        average.
      b1: :math:`\beta_1`, in (0, 1). Default 0.9 (the paper's).
      weight_lr_power: ``p``, >= 0. Default 2 (the paper's).
      state_dtype: dtype in which ``z`` is stored. Default float32 (wider for wider parameters);
        optax uses that of the parameters.

    Returns:
      A ``GradientTransformationExtraArgs`` with the state of ``gs.guard``, and inside it
      ``optax.contrib.ScheduleFreeState``; updates have the structure and the dtypes of the
      gradients. ``update`` needs ``params``.

    Raises:
      TypeError: if ``inner`` is not a transform.
      ValueError: if a number is out of its range, or ``inner`` contains ``kahan`` or what must not
        be inside a guard.

    Example:
      >>> import optax
      >>> import gradstable as gs
      >>> tx = gs.recipes.schedule_free(optax.sgd(0.1), 0.1)

    Source:
      Defazio et al., "The Road Less Scheduled", 2024, arXiv:2405.15682.
    """
    inner = inside("schedule_free", inner)
    check_rate("learning_rate", learning_rate)
    check_rules(rules)
    check_number("b1", b1, above=0.0, below=1.0)
    check_number("weight_lr_power", weight_lr_power, at_least=0.0)
    if state_dtype is not None:
        check_dtype("state_dtype", state_dtype)
    averaged = optax.contrib.schedule_free(
        inner, learning_rate, b1, weight_lr_power=weight_lr_power, state_dtype=state_dtype
    )
    return guard(_in_float32(averaged), *rules, axis_name=axis_name)


@published
def schedule_free_adamw(
    learning_rate: optax.ScalarOrSchedule = 0.0025,
    *,
    warmup_steps: int | None = None,
    b1: ArrayLike = 0.9,
    b2: ArrayLike = 0.999,
    eps: ArrayLike = 1e-8,
    weight_decay: optax.ScalarOrSchedule = 0.0,
    weight_lr_power: ArrayLike = 2.0,
    state_dtype: DTypeLike | None = None,
    rules: tuple[Rule, ...] = (),
    axis_name: AxisName = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Train with guarded schedule-free AdamW, which averages iterates instead of using a schedule.

    Use it in place of ``optax.contrib.schedule_free_adamw``; the arguments have the same names
    and defaults (by keyword after the first). Evaluate at ``gs.recipes.schedule_free_eval_params``.

    .. math:: z \leftarrow z - \eta \left(\frac{g}{\sqrt{\nu / (1 - b_2^t)} + \epsilon}
              + \lambda y\right)

    and then as in ``gs.recipes.schedule_free``. A rejected step changes nothing.

    Known weakness: that of ``gs.recipes.schedule_free``. Also, without a first moment, one
    coordinate of the step is as large as ``1/sqrt(1 - b2)`` times the rate (32) after a quiet
    period.

    Args:
      learning_rate: :math:`\eta`, a number >= 0 or a schedule that does not fall. Default 0.0025,
        as in optax.
      warmup_steps: length of a linear warm-up from 0, >= 1, that multiplies the rate, be it a
        number or a schedule. Default: no warm-up.
      b1: :math:`\beta_1` of the interpolation, in (0, 1). Default 0.9.
      weight_lr_power: how the rate weights the average, >= 0. Default 2.
      state_dtype: dtype in which ``z`` is stored, as for ``gs.recipes.schedule_free``.

    Returns:
      A ``GradientTransformationExtraArgs`` with the state of ``gs.recipes.schedule_free``; updates
      have the structure and the dtypes of the gradients. ``update`` needs ``params``.

    Example:
      >>> import gradstable as gs
      >>> tx = gs.recipes.schedule_free_adamw(2.5e-3, warmup_steps=100)

    Source:
      Defazio et al., "The Road Less Scheduled", 2024, arXiv:2405.15682.
    """
    check_rate("learning_rate", learning_rate)
    check_rules(rules)
    check_decays(b2=b2)
    check_weight_decay("weight_decay", weight_decay)
    rate = learning_rate
    if warmup_steps is not None:
        check_size("warmup_steps", warmup_steps, at_least=1)
        rate = _warmed_up(learning_rate, warmup_steps)
    inner = optax.chain(
        under_guard(scale_by_rms(decay=b2, eps=eps, eps_in_sqrt=False, bias_correction=True)),
        decay_weights(weight_decay),
        optax.scale_by_learning_rate(rate),
    )
    return schedule_free(
        inner,
        rate,
        b1=b1,
        weight_lr_power=weight_lr_power,
        state_dtype=state_dtype,
        rules=rules,
        axis_name=axis_name,
    )


def _warmed_up(learning_rate: optax.ScalarOrSchedule, steps: int) -> optax.Schedule:
    """Return a rate or schedule multiplied by a linear warm-up from 0."""

    def schedule(count: ArrayLike) -> jax.Array:
        share = jnp.clip(jnp.asarray(count, jnp.float32) / steps, 0.0, 1.0)
        return share * (learning_rate(count) if callable(learning_rate) else learning_rate)

    return schedule


def schedule_free_eval_params(opt_state: optax.OptState, params: Tree) -> Tree:
    r"""Return the average of the iterates: the parameters to evaluate.

    Use it on the state of ``gs.recipes.schedule_free``, or of any chain that contains one;
    ``optax.contrib.schedule_free_eval_params`` needs the bare state.

    .. math:: x = \frac{y - (1 - \beta_1) z}{\beta_1}

    Args:
      opt_state: a state with a ``ScheduleFreeState`` somewhere in it.
      params: the parameters you train, ``y``.

    Returns:
      A tree like ``params``, in their dtypes.

    Raises:
      ValueError: if there is no such state, or more than one.

    Example:
      >>> import jax.numpy as jnp
      >>> import optax
      >>> import gradstable as gs
      >>> tx = gs.recipes.schedule_free(optax.sgd(0.5), 0.5)
      >>> params = jnp.array([1.0])
      >>> updates, state = tx.update(jnp.array([1.0]), tx.init(params), params)
      >>> gs.recipes.schedule_free_eval_params(state, optax.apply_updates(params, updates)).tolist()
      [0.5]

    Source:
      Defazio et al., "The Road Less Scheduled", 2024, arXiv:2405.15682.
    """
    leaves = jax.tree.leaves(opt_state, is_leaf=_is_average)
    found = [leaf for leaf in leaves if _is_average(leaf)]
    if len(found) != 1:
        msg = (
            "opt_state must hold one ScheduleFreeState, as of gs.recipes.schedule_free, "
            f"got {len(found)}"
        )
        raise ValueError(msg)
    state = found[0]

    def average(y: jax.Array, z: jax.Array) -> jax.Array:
        dtype = np.promote_types(wide(y.dtype), wide(z.dtype))
        b1 = jnp.asarray(state.b1, dtype)
        return ((y.astype(dtype) - (1.0 - b1) * z.astype(dtype)) / b1).astype(y.dtype)

    return jax.tree.map(average, params, state.z)


def _is_average(node: object) -> bool:
    return isinstance(node, optax.contrib.ScheduleFreeState)


def _in_float32(
    tx: optax.GradientTransformationExtraArgs,
) -> optax.GradientTransformationExtraArgs:
    """Run a transform in float32 or wider; its updates come back in the gradients' dtypes."""

    def init_fn(params: optax.Params) -> Any:
        return tx.init(widen(as_arrays(params)))

    def update_fn(
        updates: optax.Updates, state: Any, params: optax.Params | None = None, **extra_args: Any
    ) -> tuple[optax.Updates, Any]:
        known = with_gradient(check_params(params, "schedule_free"), updates)
        new, state = tx.update(widen(updates), state, widen(known), **extra_args)
        return jax.tree.map(lambda u, g: u.astype(g.dtype), new, updates), state

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)
