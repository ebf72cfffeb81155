"""The command line: ``gradstable demo`` and what will stand beside it."""

from collections.abc import Sequence

__all__ = ["main"]


def main(args: Sequence[str] | None = None) -> int:
    """Run the command line and returns its exit status.

    Args:
      args: what follows the name of the program. Default: taken from ``sys.argv``.

    Returns:
      0 when all went well, 1 when the command failed, 2 when it was called wrongly.

    Example:
      >>> from gradstable.cli import main
      >>> main(["--version"])
      gradstable ...
      0
    """
    # Not at the top: whoever imports this package shall not pay for what a command needs.
    from gradstable._src.cli.commands import run

    return run(args)
