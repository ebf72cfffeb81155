"""The command line: ``gradstable demo`` and the other commands."""

from collections.abc import Sequence

__all__ = ["main"]


def main(args: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status.

    Args:
      args: the arguments after the program name. Default: those of ``sys.argv``.

    Returns:
      0 on success, 1 if the command failed, 2 for wrong usage, 130 if it was interrupted, 141 if
      its output was not read to the end, as by ``head``.

    Example:
      >>> from gradstable.cli import main
      >>> main(["--version"])
      gradstable ...
      0
    """
    # Not at the top: importing this package should not load what a command needs.
    from gradstable._src.cli.commands import run

    return run(args)
