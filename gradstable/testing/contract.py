"""The contract: every check by its name, and the function that runs them all."""

from collections.abc import Callable, Collection, Mapping
from types import MappingProxyType
from typing import Any

import optax

from gradstable._core.checks import check_transform
from gradstable.testing import compose, flax, numerics, state, tracing, trees
from gradstable.testing.material import default_params

Check = Callable[[optax.GradientTransformation, Any], None]

# From the ground up: what fails first is the likely cause of what fails after it.
CHECKS: Mapping[str, Check] = MappingProxyType(
    {
        check.__name__.removeprefix("check_"): check
        for check in (
            state.check_stable_state,
            state.check_state_dtypes,
            state.check_own_buffers,
            state.check_no_empty_arrays,
            state.check_map_params,
            state.check_scan,
            state.check_cond,
            state.check_donation,
            tracing.check_jit_equals_eager,
            tracing.check_one_trace,
            tracing.check_abstract,
            tracing.check_sharding,
            numerics.check_update_dtypes,
            numerics.check_strict_promotion,
            numerics.check_strict_rank,
            numerics.check_survives_any_gradient,
            trees.check_none_leaves,
            trees.check_empty_tree,
            trees.check_odd_shapes,
            trees.check_integer_leaves,
            compose.check_extra_args,
            compose.check_chain,
            compose.check_inject_hyperparams,
            compose.check_multi_steps,
            compose.check_masked,
            compose.check_partition,
            flax.check_nnx_optimizer,
            flax.check_train_state,
            flax.check_flax_bytes,
        )
    }
)


def assert_contract(
    tx: optax.GradientTransformation,
    *,
    params: optax.Params | None = None,
    skip: Collection[str] = (),
    extra_args: Mapping[str, Any] | None = None,
) -> None:
    """Hold a transform to everything that a training loop will ask of it.

    Use it in a test of your own optax transform. It runs all checks in ``gs.testing.CHECKS``,
    each of which is a promise, and tells of every one that is broken. It takes some seconds,
    most of which XLA spends on compiling.

    Transforms of optax break a few of these promises: most of them promote dtypes implicitly
    and accept integers, and none survives a NaN. Name in ``skip`` what yours need not keep.

    Args:
      tx: the transform, a ``GradientTransformation`` or one with extra arguments.
      params: tree of floating-point arrays to try it on. Default: a small tree with a matrix,
        a vector and a scalar. Some checks bring trees of their own.
      skip: names of checks that are left out, from ``gs.testing.CHECKS``.
      extra_args: what ``update`` needs by keyword, such as ``{"value": 1.0}``.

    Raises:
      AssertionError: if promises are broken; the message names each, and what differed.
      ImportError: if chex or flax is not installed (``pip install 'gradstable[testing]'``).
      TypeError: if ``tx`` is no transform.
      ValueError: if a name in ``skip`` is unknown.

    Example:
      >>> import gradstable as gs
      >>> gs.testing.assert_contract(gs.scale_by_adam())
    """
    tx = _bind(check_transform("tx", tx), extra_args or {})
    unknown = sorted(set(skip) - CHECKS.keys())
    if unknown:
        msg = f"skip names unknown checks {unknown}: the names are {list(CHECKS)}"
        raise ValueError(msg)
    broken = {
        name: error
        for name, check in CHECKS.items()
        if name not in skip and (error := failure(check, tx, params))
    }
    if broken:
        told = "\n\n".join(f"{name}: {error}" for name, error in broken.items())
        msg = f"{len(broken)} of {len(CHECKS) - len(skip)} promises are broken.\n\n{told}"
        raise AssertionError(msg) from next(iter(broken.values())).__cause__


def failure(
    check: Check, tx: optax.GradientTransformation, params: optax.Params | None = None
) -> AssertionError | None:
    """Return what is wrong about a transform by one check, or ``None``.

    Args:
      check: one of the values of ``CHECKS``.
      tx: the transform.
      params: as for ``assert_contract``.

    Returns:
      An error that tells the promise and what differed, caused by the error that was caught.

    Raises:
      ImportError: if the check needs a package that is not installed.
    """
    try:
        check(tx, default_params() if params is None else params)
    except ImportError:
        raise
    except Exception as error:  # a transform may fail in any way
        kind = "" if isinstance(error, AssertionError) else f"{type(error).__name__}: "
        broken = AssertionError(f"{check.__doc__}\n  {kind}{error}")
        broken.__cause__ = error
        return broken
    return None


def _bind(
    tx: optax.GradientTransformationExtraArgs, bound: Mapping[str, Any]
) -> optax.GradientTransformationExtraArgs:
    """Return a transform whose ``update`` always gets some extra arguments."""

    def update(
        updates: optax.Updates, state: Any, params: optax.Params | None = None, **extra_args: Any
    ) -> tuple[optax.Updates, Any]:
        return tx.update(updates, state, params, **{**bound, **extra_args})

    return optax.GradientTransformationExtraArgs(tx.init, update)
