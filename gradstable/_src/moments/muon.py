"""Muon: momentum with all singular values brought close to 1."""

import math
from functools import partial
from typing import Any, Literal, NamedTuple, TypeAlias, get_args

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike, DTypeLike

from gradstable._src.core.axis_name import AxisName, check_axis_name
from gradstable._src.core.checks import check_choice, check_number
from gradstable._src.core.layout import splits_of
from gradstable._src.core.numerics import wide
from gradstable._src.core.shown import shown
from gradstable._src.core.tree_checks import check_updates
from gradstable._src.moments.adam import look_ahead
from gradstable._src.moments.decay import Decay, check_decays
from gradstable._src.moments.engine import LeafRule, Slot, moments
from gradstable._src.moments.matrices import Axes, DimensionNumbers, matrix_axes, said_axes
from gradstable._src.moments.newton_schulz import (
    STANDARD,
    Coefficients,
    Preconditioning,
    coefficients,
    orthogonalize,
)

Scale: TypeAlias = Literal["jordan", "moonshot"]


class ScaleByMuonState(NamedTuple):
    """State of ``scale_by_muon``."""

    count: jax.Array  # shape=(), dtype=jnp.int32
    mu: optax.Updates  # like the parameters, float32 or mu_dtype


@shown
def scale_by_muon(
    *,
    beta: ArrayLike = 0.95,
    nesterov: bool = True,
    ns_coeffs: Coefficients = STANDARD,
    ns_steps: int = 5,
    eps: ArrayLike = 1e-8,
    adaptive: bool = False,
    preconditioning: Preconditioning = "frobenius",
    weight_dimension_numbers: DimensionNumbers | None = None,
    scale: Scale | None = None,
    consistent_rms: ArrayLike | None = None,
    mu_dtype: DTypeLike | None = None,
    compute_dtype: DTypeLike = "float32",
    axis_name: AxisName = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Orthogonalize momentum, matrix by matrix (Muon).

    Use it like ``optax.contrib.scale_by_muon``, for the hidden matrices of a network; ``gs.muon``
    does so and gives the rest to Adam. The update has a spectral norm of about 1 whatever the size
    of the gradient, so a matrix cannot grow faster than the learning rate times the number of
    steps.

    .. math::
      \mu &\leftarrow \beta \mu + (1 - \beta) g, \qquad
      m = \frac{\beta \mu}{1 - \beta^{t+1}} + \frac{(1 - \beta) g}{1 - \beta^t}
      \text{ (Nesterov) or } \frac{\mu}{1 - \beta^t} \\
      X_0 &= m / (\|m\|_F + \epsilon), \qquad A = X_k X_k^T \\
      X_{k+1} &= 3.4445\, X_k + (-4.7750\, A + 2.0315\, A^2)\, X_k, \qquad u = s\, X_5

    where ``s`` is 1, :math:`\sqrt{\max(1, out / in)}` or :math:`r \sqrt{\max(in, out)}`. Both
    parts of Nesterov's momentum are corrected for their bias, as in optax: in the second step the
    last gradient weighs 2.67 times as much as the one before it. Jordan's reference corrects
    neither and has a ratio of 2.16 from the start; after 100 steps both are the same.

    Shapes and Flax names determine which axes make a matrix, as for the units ``"flax"`` of
    ``gs.guard``: ``(in, out)``; ``(layers, in, out)``, layer by layer; convolutions
    ``(height, width, in, out)`` as published, with all but the last axis as inputs; attention
    ``(in, heads, head_dim)`` and ``(heads, head_dim, out)``. Anything else (biases, scales,
    embeddings) counts as vectors, each of which is divided by its norm and, with "jordan",
    multiplied by the square root of its length. ``weight_dimension_numbers`` overrides this.

    Nothing is reshaped, so leaves can be sharded along any axis, even in explicit mode, where
    ``optax.contrib.muon`` fails. The norm neither overflows nor vanishes; zero stays zero.

    Known weakness: like sign descent, its direction can be poisoned. One gradient 1000 times too
    large, let in without a guard, dominates the update until its momentum has decayed: 76 steps
    with ``beta=0.95``. Noise in directions where the gradient is almost zero is also amplified, up
    to 485 times in five steps (:math:`3.4445^5`).

    Args:
      beta: decay of the momentum, in [0, 1). Default 0.95 (the reference's).
      nesterov: whether the momentum looks one step ahead. Default ``True``.
      ns_coeffs: three numbers for all steps, a triple for each step, or ``"standard"`` or
        ``"dion"``. Default: those above (the reference's).
      ns_steps: Newton-Schulz steps, >= 1; no effect if each step has its own triple. Default 5:
        singular values end up in [0.68, 1.14] if they were above 1 % of the Frobenius norm.
      eps: added to the norm, in units of the gradient, >= 0. Default 1e-8, as in optax.
      adaptive: whether to multiply the update of each matrix by its product with ``m``, the dual
        norm. The update is then as large as the gradient, without a bound. Default ``False``.
      preconditioning: how singular values are first scaled to at most 1: by the norm
        ``"frobenius"``, ``"spectral"`` (needs a decomposition) or ``"schatten"`` (of order 4), or
        by the sums of rows, ``"aol"``. The last three start closer to convergence. Default
        ``"frobenius"``.
      weight_dimension_numbers: a tree of ``optax.contrib.MuonDimensionNumbers`` like the
        parameters, a prefix of it, or a function from the gradients to one. Default ``None``, for
        the tree or for one leaf: by shape and name.
      scale: ``"jordan"`` (the original, for rates of 0.02), or ``"moonshot"``, whose updates have
        an RMS of 0.2, so that AdamW's learning rate and weight decay carry over. Default ``None``:
        1, as in optax, whose ``muon`` adds the original.
      consistent_rms: the RMS ``r`` of updates, > 0, in place of ``scale``. Default ``None``.
      mu_dtype: dtype in which the momentum is stored. Default float32.
      compute_dtype: dtype of the products. Default float32; the reference uses bfloat16, which is
        faster on accelerators and changes singular values by a few percent.
      axis_name: as for ``gs.guard``, given as ``PartitionSpec``s. Each device then gathers the
        matrices that it has a part of, one after the other, and computes them whole. Under ``jit``,
        where you do not need it, XLA splits the products.

    Returns:
      A ``GradientTransformationExtraArgs`` with a ``ScaleByMuonState``; updates have the
      structure and the dtypes of the gradients.

    Raises:
      TypeError: if ``ns_steps`` is not an integer.
      ValueError: if an argument is out of its range.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradstable as gs
      >>> tx = gs.moments.scale_by_muon(scale="jordan")
      >>> g = jnp.diag(jnp.array([1e18, 1e16]))
      >>> update, _ = tx.update(g, tx.init(g))
      >>> [round(float(u), 1) for u in jnp.diag(update)]
      [0.7, 0.7]

    Source:
      Jordan et al., "Muon: An optimizer for hidden layers in neural networks", 2024
      (kellerjordan.github.io/posts/muon); Liu et al., "Muon is Scalable for LLM Training",
      2025, arXiv:2502.16982.
    """
    check_decays(beta=beta)
    coeffs = coefficients(ns_coeffs, ns_steps)
    check_axis_name(axis_name)
    check_number("eps", eps, at_least=0.0)
    check_choice("preconditioning", preconditioning, get_args(Preconditioning))
    if scale is not None:
        check_choice("scale", scale, get_args(Scale))
    if consistent_rms is not None:
        check_number("consistent_rms", consistent_rms, above=0.0)
    momentum = _momentum(beta, nesterov, mu_dtype)
    orthogonal = partial(
        orthogonalize,
        coeffs=coeffs,
        eps=eps,
        compute_dtype=compute_dtype,
        preconditioning=preconditioning,
    )

    def update_fn(
        updates: optax.Updates,
        state: optax.OptState,
        params: optax.Params | None = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, Any]:
        del extra_args
        updates, params = check_updates(updates, params)
        # Stay in float32 until the end: bfloat16 would be rounded twice.
        directions, new_state = momentum.update(jax.tree.map(_widen, updates), state, params)
        leaves, structure = jax.tree.flatten(directions)

        def whole_step(m: jax.Array, axes: Axes) -> jax.Array:
            u = orthogonal(m, axes)
            if adaptive:
                u = u * jnp.sum(m * u, axis=(*axes.rows, *axes.columns), keepdims=True)
            return u * jnp.asarray(_factor(scale, consistent_rms, m.shape, axes), m.dtype)

        splits = splits_of(updates, axis_name)
        whole = [split.gather(m) for m, split in zip(leaves, splits, strict=True)]
        axes = _axes(weight_dimension_numbers, jax.tree.unflatten(structure, whole))
        rows = zip(map(whole_step, whole, axes), splits, jax.tree.leaves(updates), strict=True)
        new = [split.take(u).astype(g.dtype) for u, split, g in rows]
        return jax.tree.unflatten(structure, new), new_state

    return optax.GradientTransformationExtraArgs(momentum.init, update_fn)


def _momentum(
    beta: ArrayLike, nesterov: bool, mu_dtype: DTypeLike | None
) -> optax.GradientTransformationExtraArgs:
    def at(count: jax.Array) -> LeafRule:
        decay = Decay.of(beta, count)

        def learn(g: jax.Array, mu: jax.Array) -> tuple[jax.Array]:
            return (decay.mix(mu, g),)

        def direct(g: jax.Array, new: tuple[jax.Array, ...], _: object) -> jax.Array:
            return look_ahead(decay, new[0], g) if nesterov else decay.correct(new[0])

        return LeafRule(learn, direct)

    return moments("scale_by_muon", ScaleByMuonState, (Slot("mu", mu_dtype),), at)


def _axes(numbers: DimensionNumbers | None, tree: Any) -> tuple[Axes, ...]:
    if numbers is None:
        return matrix_axes(tree)
    return said_axes("weight_dimension_numbers", numbers, tree)


def _widen(g: jax.Array) -> jax.Array:
    # A leaf of another dtype is reported, with its path, further down.
    return g.astype(wide(g.dtype)) if jnp.issubdtype(g.dtype, jnp.inexact) else g


def _factor(
    scale: Scale | None, rms: ArrayLike | None, shape: tuple[int, ...], axes: Axes
) -> ArrayLike:
    rows, columns = (math.prod(shape[axis] for axis in part) for part in axes[1:])
    if rms is not None:
        return jnp.asarray(rms, jnp.float32) * math.sqrt(max(rows, columns))
    if scale == "moonshot":
        return 0.2 * math.sqrt(max(rows, columns))
    return math.sqrt(max(1.0, columns / max(rows, 1))) if scale == "jordan" else 1.0
