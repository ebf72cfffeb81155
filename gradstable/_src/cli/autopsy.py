"""``gradstable autopsy``: find the operation that made the NaN of a captured step."""

from collections.abc import Sequence
from typing import Any

from gradstable._src.autopsy.autopsy import autopsy
from gradstable._src.cli.captured import Part, arguments, called, function, load, parser_of, run

_TEXT = "Find the operation that made the first NaN or infinity of a captured step."
_FN = "the loss, such as train:loss_fn; the current folder is searched first"
_ARGS = """what it takes, in order, with the parameters first: params, opt_state, batch or rng. By \
default params batch, and rng if it was captured"""


def main(args: Sequence[str]) -> int:
    """Run ``gradstable autopsy`` with these arguments; return the exit status."""
    parser = parser_of("autopsy", _TEXT, fn=_FN, args=_ARGS)
    parser.add_argument(
        "--has-aux",
        action="store_true",
        help="the function returns the loss and something else",
    )
    parser.add_argument(
        "--batch-axis",
        type=int,
        default=0,
        metavar="AXIS",
        help="the axis of the examples in the batch, 0 by default",
    )
    options = parser.parse(args)
    return run("autopsy", lambda: _report(options))


def _report(options: Any) -> str:
    loss_fn = function(options.fn)  # first, so that the classes of its states are known
    captured = load(options.folder)
    rng: tuple[Part, ...] = () if captured.rng is None else ("rng",)
    names = options.args or ("params", "batch", *rng)
    params, *others = arguments(captured, names)
    found = called(
        options.fn,
        names,
        lambda: autopsy(
            loss_fn, params, *others, has_aux=options.has_aux, batch_axis=options.batch_axis
        ),
    )
    return f"{captured}\n\n{found}"
