"""``gradstable autopsy``: find the operation that made the NaN of a captured step."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from gradstable._src.autopsy.autopsy import autopsy
from gradstable._src.cli.captured import Part, arguments, called, function, load, run


@dataclass(frozen=True)
class Options:
    """Find the operation that made the first NaN or infinity of a captured step.

    Exit status: 0 if there is a report, whatever it says; 1 if the function fails; 2 if the
    capture or the function cannot be found, or the options are wrong.
    """

    folder: tyro.conf.Positional[Path]
    """The folder of one step, as gs.capture has written it."""
    fn: str
    """The loss, as module:function, such as train:loss_fn; the current folder is searched first."""
    args: tuple[Part, ...] = ()
    """What it takes, in order, with the parameters first. Default: params batch, and rng if it was
    captured."""
    has_aux: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """The function returns the loss and something else."""
    batch_axis: int = 0
    """The axis of the examples in the batch."""


def main(args: Sequence[str]) -> int:
    """Run ``gradstable autopsy`` with these arguments; return the exit status."""
    options = tyro.cli(Options, prog="gradstable autopsy", args=list(args))
    return run("autopsy", lambda: _report(options))


def _report(options: Options) -> str:
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
