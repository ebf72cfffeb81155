"""``gradstable replay``: run a captured step again, and tell the data from the machine."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from gradstable._src.capture.read import Captured
from gradstable._src.cli.captured import Part, arguments, called, function, load, parser_of, run
from gradstable._src.core.find import find_all
from gradstable._src.core.ledger import Ledger
from gradstable._src.replay.replay import replay
from gradstable._src.telemetry.rows import read_rows
from gradstable._src.telemetry.state import RecordState

_MACHINE = (
    "So the machine was at fault then, for a moment, or the function, the flags of XLA, or the "
    "device are not those of that time."
)


_TEXT = """\
Run a captured step again, and say whether the data or the machine is at fault.

The step runs on this machine, on another device if there is one, and the results are compared bit \
by bit; what was measured at the time is compared as well, if the parameters are those that the \
step began with."""
_FN = "the step, such as train:step; the current folder is searched first"
_ARGS = """what it takes, in order: params, opt_state, batch or rng. By default params opt_state \
batch, and rng if it was captured"""


def main(args: Sequence[str]) -> int:
    """Run ``gradstable replay`` with these arguments; return the exit status."""
    parser = parser_of("replay", _TEXT, fn=_FN, args=_ARGS)
    parser.add_argument(
        "--times",
        type=int,
        default=2,
        metavar="N",
        help="how often to run it on its device, at least 2, which is the default",
    )
    options = parser.parse(args)
    return run("replay", lambda: _report(options))


def _report(options: Any) -> str:
    step_fn = function(options.fn)  # first, so that the classes of its states are known
    captured = load(options.folder)
    rng: tuple[Part, ...] = () if captured.rng is None else ("rng",)
    names = options.args or ("params", "opt_state", "batch", *rng)
    given = arguments(captured, names)
    found = called(options.fn, names, lambda: replay(step_fn, *given, times=options.times))
    return "\n".join([f"{captured}\n\n{found}", *_compared(captured, found.outputs)])


def _compared(captured: Captured, outputs: Any) -> list[str]:
    """Compare what was measured in the step with what is measured now."""
    if not captured.exact:
        return ["What was measured then cannot be compared: the parameters have changed since."]
    now = _measured(outputs)
    both = [name for name in ("loss", "grad_norm") if name in captured.numbers and name in now]
    if not both:
        return []
    lines: list[str] = []
    unlike = [name for name in both if not _same(captured.numbers[name], now[name])]
    for name in both:
        then = f"Then, {name} was {captured.numbers[name]:.9g}"
        lines.append(f"{then}, and it is {'not ' if name in unlike else ''}the same now" + (
            f": {now[name]:.9g}." if name in unlike else "."))  # fmt: skip
    device = jax.local_devices()[0].device_kind
    if unlike and device != captured.info.get("device_kind"):
        kind = captured.info.get("device_kind")
        return [*lines, f"But that was on another kind of device ({kind}), which rounds otherwise."]
    return [*lines, _MACHINE] if unlike else lines


def _measured(outputs: Any) -> Mapping[str, float]:
    """Return loss and norm of the gradient, from the recorder or the only guard in a result."""
    if len(find_all(outputs, RecordState)) == 1:
        steps = read_rows(outputs).steps
        return steps[-1] if steps else {}
    ledgers = find_all(outputs, Ledger)
    return {"grad_norm": float(np.max(ledgers[0][1].grad_norm))} if len(ledgers) == 1 else {}


def _same(one: float, other: float) -> bool:
    return np.array_equal(np.float32(one), np.float32(other), equal_nan=True)
