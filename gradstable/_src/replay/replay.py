"""Run a step again, and see whether it gives the same bits: the data, or the machine."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gradstable._src.core.checks import check_size
from gradstable._src.core.eager import is_traced
from gradstable._src.core.equations import is_array, is_input
from gradstable._src.core.paths import leaf_paths
from gradstable._src.core.tree_checks import first_deleted
from gradstable._src.replay.fingerprint import fingerprint
from gradstable._src.replay.purity import PURE, purity_of
from gradstable._src.replay.told import sentences

_Hashes = dict[str, tuple[int, ...]]
_hash = jax.jit(fingerprint)


class Replay(NamedTuple):
    """The result of ``replay``; ``str()`` of it is a report.

    Attributes:
      unrepeated: paths of the results that differ between runs on the same device.
      unexpected: paths of the results that differ from ``expected``.
      elsewhere: paths of the results that differ on another device.
      leaves: how many arrays the step returns.
      times: how often the step ran on its own device.
      device: that device, or how many.
      other: the other device; empty if there was none.
      same_kind: whether the other device is of the same kind.
      not_elsewhere: why it was not run on another device; empty if it was.
      compared: whether there was something expected to compare with.
      impure: whether tracing the step twice gives different programs, if something differs.
      calls_host: whether the step calls back to the host, if something differs.
      outputs: what the step returned in the first run.
    """

    unrepeated: tuple[str, ...]
    unexpected: tuple[str, ...]
    elsewhere: tuple[str, ...]
    leaves: int
    times: int
    device: str
    other: str
    same_kind: bool
    not_elsewhere: str
    compared: bool
    impure: bool
    calls_host: bool
    outputs: Any

    @property
    def verdict(self) -> Literal["same", "different", "elsewhere", "impure"]:
        """What it comes to.

        ``"same"``: the data or the model; ``"different"``: the machine; ``"elsewhere"``: the same
        here, and different on another device; ``"impure"``: something differs, but the step is not
        the same function each time, so that the bits do not tell why.
        """
        if not (self.unrepeated or self.unexpected or self.elsewhere):
            return "same"
        if self.impure:
            return "impure"
        return "different" if self.unrepeated or self.unexpected else "elsewhere"

    def __str__(self) -> str:
        return "\n".join(sentences(self))


def replay(
    step_fn: Callable[..., Any],
    *args: Any,
    expected: Any = None,
    device: Any = None,
    times: int = 2,
) -> Replay:
    """Run a step again on the same arguments, and say whether the data or the machine is at fault.

    Use it on a step that ``gs.guard`` rejected, or that looks wrong: with the function that the
    loop calls, and the arguments of that step. A rejected step changes neither parameters nor the
    state of the optimizer, so they are still there; ``gs.capture`` keeps the batch. The step runs
    ``times`` times on the device of its arguments and once on another one, and the results are
    compared by ``gs.fingerprint``, array by array:

    - *the same*: the data or the model. A fault that lasted for a moment is not seen by this: the
      replays are sound, and agree. Pass ``expected``, what the step returned then.
    - *different from one another, or from* ``expected``: the machine, if the step is deterministic
      and the same.
    - *the same here, different there*: one of two devices computes wrongly each time. Devices of
      different kinds round differently, which says nothing.

    A fault of one device before values are summed over devices is shared by all of them: copies
    of the parameters agree (``gs.sharding.unequal_replicas`` sees nothing), and only ``expected``
    tells. Most faults are silent: about 1 % of them make a NaN or an infinity.

    The same bits need the same compiled program. On a CPU: the same number of threads. On a GPU:
    ``XLA_FLAGS=--xla_gpu_deterministic_ops=true``, and between processes also the same choice of
    kernels (``--xla_gpu_autotune_level=0``, or saved results). TPUs are deterministic.

    Args:
      step_fn: the function of one step, compiled by ``jax.jit`` or not. It may donate its
        arguments: it is called with copies, for which there must be memory.
      *args: its arguments. Bind others by ``functools.partial``.
      expected: what the step returned, or ``gs.fingerprint`` of it: of every array, of a part, or
        of the whole. ``None`` in place of a part leaves it out.
      device: another ``jax.Device`` to try. Default: a local one of the same kind, if there is one
        and all arguments are on one device. Their own device: no other is tried.
      times: how often to run it on its own device, at least 2. More find rarer faults.

    Returns:
      A ``Replay``. Print it.

    Raises:
      TypeError: if it is called inside ``jit``.
      ValueError: if an argument was donated, ``expected`` does not look like the result, ``times``
        is out of range, or ``device`` is given for arguments on several devices.

    Example:
      >>> import jax
      >>> import jax.numpy as jnp
      >>> import gradstable as gs
      >>> step = jax.jit(lambda params, batch: params - 0.1 * jnp.log(batch))
      >>> params, batch = jnp.ones(3), jnp.array([1.0, -1.0, 2.0])
      >>> found = gs.replay(step, params, batch, expected=step(params, batch))
      >>> found.verdict
      'same'
      >>> gs.replay(step, params, batch, expected=jnp.ones(3)).verdict
      'different'

    Source:
      Ours; Megatron-LM (``rerun_state_machine``) tells transient from persistent faults in this
      way. The share of NaN and infinity is that of arXiv 2605.04213.
    """
    check_size("times", times, at_least=2)
    _check_args(args)
    homes = _devices_of(args)
    other, why_not = _another(homes, device)
    outputs = step_fn(*_copies(args))
    first = _hashes(outputs)
    runs = [_hashes(step_fn(*_copies(args))) for _ in range(times - 1)]
    unrepeated = tuple(dict.fromkeys(path for run in runs for path in _unlike(first, run)))
    unexpected = () if expected is None else _unexpected(expected, outputs)
    elsewhere: tuple[str, ...] = ()
    if other is not None:
        try:
            with jax.default_device(other):
                elsewhere = _unlike(first, _hashes(step_fn(*_copies(args, other))))
        except Exception as error:  # such as constants of the step that stay where they are
            other, why_not = None, f"it cannot run on {other}: {_first_line(error)}"
    differs = unrepeated or unexpected or elsewhere
    purity = purity_of(step_fn, args) if differs else PURE
    return Replay(
        unrepeated=unrepeated,
        unexpected=unexpected,
        elsewhere=elsewhere,
        leaves=len(first),
        times=times,
        device=str(homes[0]) if len(homes) == 1 else f"{len(homes)} devices",
        other="" if other is None else str(other),
        same_kind=other is not None and other.device_kind == homes[0].device_kind,
        not_elsewhere=why_not,
        compared=expected is not None,
        impure=purity.impure,
        calls_host=purity.calls_host,
        outputs=outputs,
    )


def _check_args(args: tuple[Any, ...]) -> None:
    if is_traced(args):
        msg = "replay looks at values, so call it outside of jit, on the arguments of one step"
        raise TypeError(msg)
    path = first_deleted(args)
    if path is not None:
        msg = (
            f"args{path} was donated to an earlier call, so its values are gone: pass what the "
            "rejected step returned, which has the same bits, or keep a copy before the step, "
            "as in jax.tree.map(jnp.copy, state)"
        )
        raise ValueError(msg)


def _copies(args: tuple[Any, ...], device: Any = None) -> tuple[Any, ...]:
    """Return arguments that the step may donate or overwrite."""

    def copy(leaf: Any) -> Any:
        if device is not None and is_input(leaf):
            return jax.device_put(leaf, device)
        if isinstance(leaf, jax.Array):
            return jnp.copy(leaf)
        return leaf.copy() if isinstance(leaf, np.ndarray) else leaf

    return jax.tree.map(copy, args)


def _devices_of(args: tuple[Any, ...]) -> Sequence[Any]:
    arrays = [leaf for leaf in jax.tree.leaves(args) if isinstance(leaf, jax.Array)]
    found = {device for array in arrays for device in array.devices()}
    found = found or jnp.zeros(()).devices()
    return sorted(found, key=lambda device: device.id)


def _another(homes: Sequence[Any], device: Any) -> tuple[Any, str]:
    """Return another device to try, or why there is none."""
    if len(homes) > 1:
        if device is not None:
            msg = (
                f"device must be None for arguments on {len(homes)} devices: the program for one "
                "device is another one"
            )
            raise ValueError(msg)
        return None, "the arguments are on several devices"
    home = homes[0]
    if device is not None:
        return (None, "none was asked for") if device == home else (device, "")
    for one in jax.local_devices(backend=home.platform):
        if one != home and one.device_kind == home.device_kind:
            return one, ""
    return None, "this process has only one"


def _hashes(outputs: Any) -> _Hashes:
    leaves = zip(leaf_paths(outputs), jax.tree.leaves(outputs), strict=True)
    return {path: _number(leaf) for path, leaf in leaves if is_array(leaf)}


def _number(leaf: Any) -> tuple[int, ...]:
    return tuple(np.asarray(_hash(leaf)).tolist())


def _unlike(one: _Hashes, other: _Hashes) -> tuple[str, ...]:
    return tuple(path for path in {**one, **other} if one.get(path) != other.get(path))


def _unexpected(expected: Any, outputs: Any) -> tuple[str, ...]:
    """Return the paths where the result is not what was expected, as values or as hashes."""
    flat, structure = jax.tree_util.tree_flatten_with_path(
        expected, is_leaf=lambda node: node is None
    )
    try:
        parts = structure.flatten_up_to(outputs)
    except (ValueError, TypeError) as error:
        msg = (
            "expected must have the structure of what the step returns, or of its first levels, "
            f"with fingerprints or None in place of parts: {_first_line(error)}"
        )
        raise ValueError(msg) from None
    found: list[str] = []
    for (path, leaf), part in zip(flat, parts, strict=True):
        name = jax.tree_util.keystr(path)
        if leaf is not None and is_array(leaf) and not _is(leaf, part, name):
            found.append(name)
    return tuple(found)


def _is(expected: Any, part: Any, name: str) -> bool:
    array = np.asarray(expected) if not isinstance(expected, jax.Array) else expected
    is_hash = array.dtype == np.uint32 and array.shape == (2,)
    if is_hash and np.array_equal(np.asarray(array), np.asarray(_hash(_arrays(part)))):
        return True
    if is_array(part):
        return _number(expected) == _number(part)
    if is_hash:
        return False
    msg = (
        f"expected{name} must be gs.fingerprint of a part of the result, or look like that part: "
        f"got {array.dtype}{list(array.shape)} for {type(part).__name__}"
    )
    raise ValueError(msg)


def _arrays(tree: Any) -> Any:
    return jax.tree.map(lambda leaf: leaf if is_array(leaf) else None, tree)


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
