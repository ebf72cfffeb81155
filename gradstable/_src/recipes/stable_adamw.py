"""AdamW that cannot explode: gradients judged before the moments, steps capped after them."""

import optax
from jax.typing import ArrayLike, DTypeLike

from gradstable._src.core.axis_name import AxisName
from gradstable._src.core.checks import check_number, check_rate
from gradstable._src.core.types import Mask
from gradstable._src.core.units import Units, check_units
from gradstable._src.core.weight_decay import check_weight_decay
from gradstable._src.guard import guard
from gradstable._src.recipes.recipe import published
from gradstable._src.recipes.two_sided import Caps, two_sided_adam
from gradstable._src.rules.protocol import Rule, check_rules


@published
def stable_adamw(
    learning_rate: optax.ScalarOrSchedule,
    *,
    b1: ArrayLike = 0.9,
    b2: ArrayLike = 0.95,
    eps: ArrayLike = 1e-8,
    mu_dtype: DTypeLike | None = None,
    nu_dtype: DTypeLike | None = None,
    weight_decay: optax.ScalarOrSchedule = 1e-4,
    mask: Mask = None,
    max_rms: ArrayLike = 1.0,
    max_ratio: ArrayLike = 0.1,
    floor: ArrayLike = 1e-3,
    relative_floor: ArrayLike = 0.1,
    units: Units | None = None,
    rules: tuple[Rule, ...] = (),
    axis_name: AxisName = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Train with AdamW protected on both sides, with a bound on how fast parameters can grow.

    Use it when you know nothing else about the problem. ``gs.guard`` judges the gradient before it
    enters the moments, ``b2`` forgets a quiet period within 20 steps, and two caps follow: one on
    the size of the update, and one on the step relative to the parameters. It costs 14 words of
    memory traffic per parameter; ``gs.adamw`` costs 11, and the equivalent chain of transforms 21.

    .. math::
      \hat u &= u \min\left(1, d / RMS(u)\right), \qquad
      \Delta = -\eta\, \tau\, (\hat u + \lambda \theta) \\
      \tau &= \min\left(1, \frac{r \sqrt n \max(RMS(\theta), f, q\, RMS(\text{all}))}
                  {\eta\, (\|\hat u\| + \lambda \|\theta\|)}\right)

    for each leaf (or unit) of ``n`` entries, with ``u`` from ``gs.moments.scale_by_adam``. Moments
    and decay come from AdamW. The idea of capping the RMS of the update comes from Adafactor and
    StableAdamW (theirs, ``gs.moments.scale_by_clipped_adam``, divides the rate by the RMS of ``g``
    over the root of ``nu``), and that of measuring a step against its parameters from LARS.

    **Theorem.** Whatever the gradients, NaN and infinity included, the largest RMS of a leaf,
    :math:`M_t`, and every leaf obey

    .. math::
      \max(M_t, f) &\le (1 + r)^t \max(M_0, f) \\
      \|\theta_t\| &\le \|\theta_0\| + d \sqrt n\, \textstyle\sum_{k<t} \eta_k
                   \qquad (\eta_k \lambda \le 1)

    *Proof.* On a rejected step nothing moves. Otherwise :math:`\|\Delta\| \le \tau \eta (\|\hat
    u\| + \lambda \|\theta\|) \le r \sqrt n \max(M, f)` by the triangle inequality, the choice of
    :math:`\tau`, :math:`q \le 1`, and because the RMS of all is at most :math:`M`; add this to
    :math:`\|\theta\| \le \sqrt n M` and iterate for the first line. For the second, :math:`\theta +
    \Delta = (1 - \tau \eta \lambda) \theta - \tau \eta \hat u`, whose first term is no longer than
    :math:`\theta`, and :math:`\|\hat u\| \le d \sqrt n`. Entries dropped by the last line of
    defense make a step shorter. Rounding multiplies the bounds by at most ``1 + 1e-5`` per step in
    float32; in narrower dtypes a capped step is rounded toward zero, and adding it to bfloat16
    parameters rounds by one part in 256 per step.

    Known weakness: if all parameters start at zero, they first move by ``max_ratio * floor`` (RMS
    1e-4) and need 35 steps to reach an RMS of 0.01, where Adam with a rate of 1e-3 needs 10. Raise
    ``floor`` to the rate over ``max_ratio`` if that matters. A leaf that starts at zero among
    others first moves by a hundredth of their RMS.

    Args:
      b2: decay of the second moment, in [0, 1). Default 0.95, with which no coordinate of ``u``
        exceeds 1.17 (7.27 with 0.999), and a stale ``nu`` is forgotten in 20 steps instead of 1000.
        Most large language models use it (GPT-3, Llama 2).
      eps: added outside the root, > 0. Default 1e-8.
      max_rms: ``d``, the largest RMS of an update, > 0 (``inf``: no cap). Default 1.
      max_ratio: ``r``, the largest step relative to its parameters, > 0 (``inf``: no cap). Default
        0.1; see ``gs.rate.cap_trust``.
      floor: ``f``, the smallest RMS that parameters count as, > 0. Default 1e-3.
      relative_floor: ``q``, the same relative to the RMS of all parameters, in [0, 1]. Default 0.1;
        see ``gs.rate.cap_trust``.
      units: the parts of a leaf that are capped, and judged by rules, separately; use ``"layer"``
        for leaves that stack layers. Default ``None``: leaves are capped as a whole, and rules use
        their own units.

    Returns:
      A ``GradientTransformationExtraArgs`` with the state of ``gs.guard`` (inside it, that of
      ``optax.scale_by_adam``); updates have the structure and the dtypes of the gradients.
      ``update`` needs ``params``.

    Raises:
      TypeError: if ``units`` is of the wrong kind.
      ValueError: if a hyper-parameter is out of its range.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradstable as gs
      >>> tx = gs.stable_adamw(100.0, weight_decay=0.0)  # a rate that is far too high
      >>> params = jnp.full(4, 0.5)
      >>> update, _ = tx.update(jnp.full(4, 1e12), tx.init(params), params)
      >>> [round(float(u), 4) for u in update]
      [-0.05, -0.05, -0.05, -0.05]

    Source:
      Ours, from known parts: Loshchilov, Hutter, 2017, arXiv:1711.05101; Shazeer, Stern, 2018,
      arXiv:1804.04235; Wortsman et al., 2023, arXiv:2304.13013; You et al., 2017, arXiv:1708.03888.
    """
    check_rate("learning_rate", learning_rate)
    check_rules(rules)
    check_number("eps", eps, above=0.0)
    check_weight_decay("weight_decay", weight_decay)
    check_number("max_rms", max_rms, above=0.0, finite=False)
    check_number("max_ratio", max_ratio, above=0.0, finite=False)
    check_number("floor", floor, above=0.0)
    check_number("relative_floor", relative_floor, at_least=0.0, at_most=1.0)
    if units is not None:
        check_units(units)
    inner = two_sided_adam(
        learning_rate,
        b1=b1,
        b2=b2,
        eps=eps,
        mu_dtype=mu_dtype,
        nu_dtype=nu_dtype,
        weight_decay=weight_decay,
        mask=mask,
        caps=Caps(max_rms, max_ratio, floor, relative_floor, "leaf" if units is None else units),
        axis_name=axis_name,
    )
    return guard(inner, *rules, axis_name=axis_name, units=units)
