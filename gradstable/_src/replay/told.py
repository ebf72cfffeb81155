"""The report of a replay, in sentences."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gradstable._src.replay.replay import Replay

_SHOWN = 4
_GPU = (
    "A GPU gives the same bits only with XLA_FLAGS=--xla_gpu_deterministic_ops=true, and in "
    "another process with --xla_gpu_autotune_level=0."
)
_IMPURE = (
    "Tracing the step twice gives different programs: it reads something of the host that changes, "
    "such as a random number or the time. So these bits do not tell whether the machine is at "
    "fault. Pass what it reads as an argument, and replay again."
)
_CALLS_HOST = (
    "The step calls back to the host. If that does not return the same each time, it is the cause."
)
_UNREPEATED = (
    "The machine is at fault, if the step is deterministic: a fault that comes and goes. "
    "Randomness that the step does not get as an argument looks the same."
)
_UNEXPECTED = (
    "The replays agree with each other: the machine was at fault then, for a moment, or the step, "
    "its arguments, the flags of XLA, or the device are not those of that time."
)
_ELSEWHERE = (
    "One of the two devices computes wrongly each time. A third one shows which: pass it as device."
)
_OTHER_KIND = (
    "It is a device of another kind, which rounds differently: this does not mean that one of them "
    "is faulty. Pass a device of the same kind."
)
_SAME = "The data or the model is at fault, and not the machine."
_NOT_COMPARED = (
    "A fault that has passed is not seen this way: pass expected=, what the step returned then."
)


def sentences(found: Replay) -> list[str]:
    """Return the report, one sentence or so per line."""
    lines = [_what_ran(found)]
    if found.unrepeated:
        lines.append(f"{_differ(found.unrepeated, found)} between runs on {found.device}.")
    if found.unexpected:
        lines.append(f"{_differ(found.unexpected, found)} from what was expected.")
    if found.elsewhere:
        lines.append(f"{_differ(found.elsewhere, found)} on {found.other}.")
    if found.verdict == "same":
        as_expected = ", and are as expected" if found.compared else ""
        lines += [f"All {found.leaves} arrays have the same bits each time{as_expected}.", _SAME]
        return lines if found.compared else [*lines, _NOT_COMPARED]
    if found.impure:
        return [*lines, _IMPURE]
    if found.unrepeated:
        lines.append(_UNREPEATED)
    elif found.unexpected:
        lines.append(_UNEXPECTED)
    else:
        lines.append(_ELSEWHERE if found.same_kind else _OTHER_KIND)
    if found.calls_host:
        lines.append(_CALLS_HOST)
    return [*lines, _GPU] if "cuda" in found.device.lower() else lines


def _what_ran(found: Replay) -> str:
    here = f"The step ran {found.times} times on {found.device}"
    if found.other:
        return f"{here} and once on {found.other}."
    return f"{here}, and on no other device: {found.not_elsewhere}."


def _differ(paths: tuple[str, ...], found: Replay) -> str:
    shown = ", ".join(path or "the result" for path in paths[:_SHOWN])
    more = ", ..." if len(paths) > _SHOWN else ""
    verb = "differs" if len(paths) == 1 else "differ"
    return f"{len(paths)} of {found.leaves} arrays {verb} ({shown}{more})"
