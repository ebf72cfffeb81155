"""What a wrapper requires of its trees: nothing that the inner transform does not require."""

import contextlib
from collections.abc import Generator

from gradstable._src.core.tree_checks import check_same_tree, check_updates, leaves_by_path


@contextlib.contextmanager
def explaining(updates: object, params: object | None) -> Generator[None]:
    """Let an inner transform check its arguments; if it fails, say what is wrong with them.

    Gradients need not look like parameters: those of ``optax.contrib.dpsgd`` have a batch axis,
    and ``optax.lookahead`` has two sets of parameters. So a wrapper rejects nothing on its own.
    """
    try:
        yield
    except Exception as error:
        try:
            check_updates(updates, params)
        except (TypeError, ValueError) as clearer:
            raise clearer from error
        raise


def check_results(results: object, updates: object, params: object | None) -> None:
    """Raise unless the updates of an inner transform can be added to the parameters.

    Raises:
      TypeError: if a gradient was not floating-point.
      ValueError: if structure or shapes differ from those of ``params``, with the path. If the
        gradients did not match the parameters either, the message names those.
    """
    if params is None:
        return
    try:
        check_same_tree("updates", leaves_by_path(results), "params", leaves_by_path(params))
    except ValueError:
        check_updates(updates, params)
        raise
