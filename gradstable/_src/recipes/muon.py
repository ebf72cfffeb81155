"""Muon for matrices and Adam for the rest, guarded."""

from collections.abc import Hashable
from typing import Any

import jax
import optax
from jax.typing import ArrayLike, DTypeLike

from gradstable._src.core.axis_name import AxisName
from gradstable._src.core.checks import check_number, check_rate
from gradstable._src.core.equations import as_arrays
from gradstable._src.core.layout import whole_shapes
from gradstable._src.core.masked import of_arrays
from gradstable._src.core.types import Mask
from gradstable._src.core.weight_decay import check_weight_decay, decay_weights
from gradstable._src.guard import guard
from gradstable._src.moments.adam import scale_by_adam
from gradstable._src.moments.decay import check_decays
from gradstable._src.moments.engine import under_guard
from gradstable._src.moments.matrices import DimensionNumbers, is_matrix, matrix_axes, numbers_of
from gradstable._src.moments.muon import Scale, scale_by_muon
from gradstable._src.moments.newton_schulz import STANDARD, Coefficients, Preconditioning
from gradstable._src.recipes.recipe import published
from gradstable._src.rules.protocol import Rule, check_rules

_BOTH = "matrices and muon_weight_dimension_numbers both choose the leaves for Muon: pass only one"


@published
def muon(
    learning_rate: optax.ScalarOrSchedule,
    *,
    ns_coeffs: Coefficients = STANDARD,
    ns_steps: int = 5,
    beta: ArrayLike = 0.95,
    eps: ArrayLike = 1e-8,
    weight_decay: optax.ScalarOrSchedule = 0.0,
    weight_decay_mask: Mask = None,
    mu_dtype: DTypeLike | None = None,
    nesterov: bool = True,
    adaptive: bool = False,
    preconditioning: Preconditioning = "frobenius",
    adam_b1: ArrayLike = 0.9,
    adam_b2: ArrayLike = 0.999,
    adam_eps_root: ArrayLike = 0.0,
    adam_weight_decay: optax.ScalarOrSchedule = 0.0,
    adam_learning_rate: optax.ScalarOrSchedule | None = None,
    muon_weight_dimension_numbers: DimensionNumbers | None = None,
    consistent_rms: ArrayLike | None = None,
    scale: Scale = "jordan",
    compute_dtype: DTypeLike = "float32",
    matrices: Mask = None,
    rules: tuple[Rule, ...] = (),
    axis_name: AxisName = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Train matrices with ``gs.moments.scale_by_muon`` and the rest with Adam, behind the guard.

    Use it in place of ``optax.contrib.muon``; the arguments have the same names and defaults. It
    also treats stacked layers, convolutions and attention kernels as matrices, and works on
    explicitly sharded leaves. A bad gradient, which would dominate the momentum for a hundred
    steps, is rejected first.

    .. math:: \theta \leftarrow \theta - \eta\, (u + \lambda \theta)

    with :math:`u` from ``gs.moments.scale_by_muon`` or from ``gs.moments.scale_by_adam``. A
    rejected step changes nothing.

    Known weakness: the reference trains the head of a language model with Adam, but its shape is
    that of a matrix and nothing distinguishes it from others: choose the matrices with
    ``matrices``.

    Args:
      learning_rate: :math:`\eta`, a number >= 0 or a schedule. With "jordan", the reference uses
        0.02; with "moonshot", use the rate of AdamW.
      ns_coeffs: coefficients of the Newton-Schulz steps, as for ``gs.moments.scale_by_muon``.
      ns_steps: Newton-Schulz steps, >= 1. Default 5.
      beta: decay of the momentum, in [0, 1). Default 0.95.
      eps: added to the norm of the momentum, and to the root of Adam, >= 0. Default 1e-8.
      weight_decay: :math:`\lambda` for matrices, a number >= 0 or a schedule, times the learning
        rate. Default 0.
      weight_decay_mask: tree of bools, or a function from parameters to one: which matrices to
        decay.
      mu_dtype: dtype of the momentum and of Adam's first moment. Default float32.
      nesterov: whether the momentum and Adam's first moment look one step ahead. Default ``True``.
      adaptive: whether updates of matrices are as large as their gradients. Default ``False``.
      preconditioning: how singular values are first scaled to at most 1. Default ``"frobenius"``.
      adam_b1: decay of Adam's first moment, in [0, 1).
      adam_b2: decay of Adam's second moment, in [0, 1).
      adam_eps_root: added inside Adam's root, >= 0.
      adam_weight_decay: :math:`\lambda` for all other leaves, a number >= 0 or a schedule. Default
        0.
      adam_learning_rate: :math:`\eta` for all other leaves. Default: ``learning_rate``.
      muon_weight_dimension_numbers: a tree of ``optax.contrib.MuonDimensionNumbers`` like the
        parameters, with ``None`` for leaves that go to Adam; or a prefix of it, or a function from
        parameters to one. Default: by shape and name.
      consistent_rms: the RMS of matrix updates, > 0, in place of ``scale``. Default ``None``.
      scale: ``"jordan"`` or ``"moonshot"``, which is ``consistent_rms=0.2``.
      compute_dtype: dtype of the products. Default float32.
      matrices: tree of bools, or a function from parameters to one: which leaves go to Muon.
        Default: all that have inputs and outputs, so no embeddings. (If you send a leaf without
        them to Muon, it is normalized like the vectors in ``gs.moments.scale_by_muon``.)
      axis_name: as for ``gs.guard``, and for ``gs.moments.scale_by_muon``.

    Example:
      >>> import gradstable as gs
      >>> tx = gs.muon(3e-4, scale="moonshot", weight_decay=0.1, adam_weight_decay=0.1)

    Source:
      Jordan et al., 2024 (kellerjordan.github.io/posts/muon); Liu et al., 2025,
      arXiv:2502.16982.
    """
    other_rate = learning_rate if adam_learning_rate is None else adam_learning_rate
    check_rate("learning_rate", learning_rate)
    check_rules(rules)
    check_rate("adam_learning_rate", other_rate)
    check_weight_decay("weight_decay", weight_decay)
    check_decays(adam_b1=adam_b1, adam_b2=adam_b2)
    check_number("adam_eps_root", adam_eps_root, at_least=0.0)
    check_weight_decay("adam_weight_decay", adam_weight_decay)
    numbers = muon_weight_dimension_numbers
    labels = _labels(matrices, numbers, axis_name)
    orthogonal = scale_by_muon(
        beta=beta,
        nesterov=nesterov,
        ns_coeffs=ns_coeffs,
        ns_steps=ns_steps,
        eps=eps,
        adaptive=adaptive,
        preconditioning=preconditioning,
        weight_dimension_numbers=numbers,
        scale=scale,
        consistent_rms=consistent_rms,
        mu_dtype=mu_dtype,
        compute_dtype=compute_dtype,
        axis_name=axis_name,
    )
    b1, b2, root = adam_b1, adam_b2, adam_eps_root
    adam = scale_by_adam(b1=b1, b2=b2, eps=eps, eps_root=root, mu_dtype=mu_dtype, nesterov=nesterov)
    decay = decay_weights(weight_decay, weight_decay_mask)
    rate, other_rate = map(optax.scale_by_learning_rate, (learning_rate, other_rate))
    parts: dict[Hashable, optax.GradientTransformation] = {
        "matrix": optax.chain(orthogonal, decay, rate),
        "other": optax.chain(under_guard(adam), decay_weights(adam_weight_decay), other_rate),
    }
    return guard(of_arrays(optax.partition(parts, labels)), *rules, axis_name=axis_name)


def _labels(matrices: Mask, numbers: DimensionNumbers | None, axis_name: AxisName) -> Any:
    """Return the function that labels every leaf with the part it belongs to."""
    if matrices is not None and numbers is not None:
        raise ValueError(_BOTH)

    def label(tree: Any) -> Any:
        tree = as_arrays(tree)
        structure = jax.tree.structure(tree)
        if numbers is not None:
            named = numbers_of("muon_weight_dimension_numbers", numbers, tree)
            chosen = jax.tree.unflatten(structure, [number is not None for number in named])
        elif matrices is None:
            axes = matrix_axes(whole_shapes(tree, axis_name))
            chosen = jax.tree.unflatten(structure, map(is_matrix, axes))
        else:
            chosen = matrices(tree) if callable(matrices) else matrices
        return jax.tree.map(lambda matrix: "matrix" if matrix else "other", chosen)

    return label
