"""The contract: every check by name, and the function that runs them all."""

import functools
from collections.abc import Callable, Collection, Mapping
from types import MappingProxyType
from typing import Any

import optax
from jax.sharding import Mesh

from gradstable._src.core.checks import check_transform
from gradstable._src.testing import (
    compose,
    derivatives,
    flax,
    numerics,
    readers,
    state,
    switches,
    tracing,
    trees,
)
from gradstable._src.testing import mesh as mesh_checks
from gradstable._src.testing.material import default_params

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
            readers.check_optax_readers,
            state.check_scan,
            state.check_cond,
            state.check_donation,
            tracing.check_jit_equals_eager,
            tracing.check_one_trace,
            tracing.check_abstract,
            tracing.check_name_scopes,
            tracing.check_sharding,
            numerics.check_update_dtypes,
            numerics.check_strict_promotion,
            numerics.check_strict_rank,
            numerics.check_survives_any_gradient,
            numerics.check_last_cast,
            switches.check_debug_switches,
            derivatives.check_derivative,
            trees.check_none_leaves,
            trees.check_empty_tree,
            trees.check_odd_shapes,
            trees.check_integer_leaves,
            trees.check_other_leaves,
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


# Mesh checks also get the result of one device, and the last a function for inside shard_map.
MESH_CHECKS: Mapping[str, Callable[..., None]] = MappingProxyType(
    {
        "auto_mesh": mesh_checks.check_auto_mesh,
        "explicit_mesh": mesh_checks.check_explicit_mesh,
        "shard_map": mesh_checks.check_shard_map,
    }
)


def assert_contract(
    tx: optax.GradientTransformation,
    *,
    params: optax.Params | None = None,
    skip: Collection[str] = (),
    extra_args: Mapping[str, Any] | None = None,
    mesh: Mesh | None = None,
    for_specs: mesh_checks.ForSpecs | None = None,
) -> None:
    """Check that a transform does everything a training loop will ask of it.

    Use it in a test of your own optax transform. It runs all checks in ``gs.testing.CHECKS``, each
    of which is one promise, and reports every broken one. It takes a few seconds, mostly to
    compile.

    optax's own transforms break a few of these promises: most of them promote dtypes implicitly
    and accept integers, and none survives a NaN. Name in ``skip`` what yours need not keep.

    Args:
      tx: the transform, a ``GradientTransformation`` or one with extra arguments.
      params: tree of floating-point arrays to test it on. Default: a small tree with a matrix,
        a vector and a scalar. Some checks bring their own trees.
      skip: names of checks to leave out, from ``gs.testing.CHECKS``.
      extra_args: keyword arguments that ``update`` needs, such as ``{"value": 1.0}``.
      mesh: a mesh of several devices, to also run the checks in ``gs.testing.MESH_CHECKS``: the
        same gradients give the same updates and state there as on one device, to 2e-6 of the
        largest entry of a leaf, or updates to a rounding of the parameters. On the CPU,
        ``jax.config.update("jax_num_cpu_devices", 8)`` makes devices. Parameters are split over all
        axes of the mesh where they divide evenly. Default: none of these checks.
      for_specs: a function from ``PartitionSpec``s for the parameters to the transform to use
        inside ``jax.shard_map``, such as ``lambda specs: mine(axis_name=specs)``. Default: skip
        the check ``shard_map``.

    Raises:
      AssertionError: if promises are broken. The message names each one and what differed.
      ImportError: if chex or flax is not installed (``pip install 'gradstable[testing]'``).
      TypeError: if ``tx`` is not a transform.
      ValueError: if a name in ``skip`` is unknown.

    Example:
      >>> import gradstable as gs
      >>> gs.testing.assert_contract(gs.moments.scale_by_adam())
    """
    bound = extra_args or {}
    unknown = sorted(set(skip) - CHECKS.keys() - MESH_CHECKS.keys())
    if unknown:
        msg = f"skip names unknown checks {unknown}: the names are {[*CHECKS, *MESH_CHECKS]}"
        raise ValueError(msg)
    tx = _bind(check_transform("tx", tx), bound)
    checks = dict(CHECKS)
    if mesh is not None:
        specific = None if for_specs is None else lambda specs: _bind(for_specs(specs), bound)
        checks |= on_mesh(tx, mesh, params=params, for_specs=specific)
    chosen = {name: check for name, check in checks.items() if name not in skip}
    failed = {name: failure(check, tx, params) for name, check in chosen.items()}
    broken = {name: error for name, error in failed.items() if error}
    if broken:
        report = "\n\n".join(f"{name}: {error}" for name, error in broken.items())
        msg = f"{len(broken)} of {len(chosen)} promises are broken.\n\n{report}"
        raise AssertionError(msg) from next(iter(broken.values())).__cause__


def on_mesh(
    tx: optax.GradientTransformation,
    mesh: Mesh,
    *,
    params: optax.Params | None = None,
    for_specs: mesh_checks.ForSpecs | None = None,
) -> dict[str, Check]:
    """Return the mesh checks as checks of ``tx`` alone; they share the result of one device."""
    leaves = mesh_checks.mesh_params(mesh) if params is None else params
    expected = functools.cache(lambda: mesh_checks.on_one_device(tx, leaves))
    last = {} if for_specs is None else {"for_specs": for_specs}

    def bind(name: str) -> Check:
        check, more = MESH_CHECKS[name], last if name == "shard_map" else {}

        @functools.wraps(check)
        def run(tx: optax.GradientTransformation, _: Any) -> None:
            check(tx, leaves, mesh, expected(), **more)

        return run

    return {name: bind(name) for name in MESH_CHECKS if name != "shard_map" or last}


def failure(
    check: Check, tx: optax.GradientTransformation, params: optax.Params | None = None
) -> AssertionError | None:
    """Return what one check finds wrong with a transform, or ``None``.

    Args:
      check: one of the values of ``CHECKS``.
      tx: the transform.
      params: as for ``assert_contract``.

    Returns:
      An error with the promise and what differed, caused by the error that was caught.

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
    tx: optax.GradientTransformation, bound: Mapping[str, Any]
) -> optax.GradientTransformationExtraArgs:
    """Return a transform whose ``update`` always gets the given extra arguments."""
    full = optax.with_extra_args_support(tx)

    def update(
        updates: optax.Updates, state: Any, params: optax.Params | None = None, **extra_args: Any
    ) -> tuple[optax.Updates, Any]:
        return full.update(updates, state, params, **{**bound, **extra_args})

    return optax.GradientTransformationExtraArgs(tx.init, update)
