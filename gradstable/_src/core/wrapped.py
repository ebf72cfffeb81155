"""What a wrapper asks of the trees it is given: nothing that the transform inside does not ask."""

import contextlib
from collections.abc import Generator

from gradstable._src.core.tree_checks import check_same_tree, check_updates, leaves_by_path


@contextlib.contextmanager
def explaining(updates: object, params: object | None) -> Generator[None]:
    """Let an inner transform judge its arguments; where it fails, say what is odd about them.

    Gradients need not look like parameters: those of ``optax.contrib.dpsgd`` have a batch axis,
    ``optax.lookahead`` has two sets of parameters. So a wrapper refuses nothing by itself.
    """
    try:
        yield
    except Exception as error:
        try:
            check_updates(updates, params)
        except (TypeError, ValueError) as told:
            raise told from error
        raise


def check_results(results: object, updates: object, params: object | None) -> None:
    """Raise unless the updates of an inner transform can be added to the parameters.

    Raises:
      TypeError: if a gradient was not floating-point.
      ValueError: if structure or shapes differ from those of ``params``, with the path. If the
        gradients did not look like the parameters either, they are what the message names.
    """
    if params is None:
        return
    try:
        check_same_tree("updates", leaves_by_path(results), "params", leaves_by_path(params))
    except ValueError:
        check_updates(updates, params)
        raise
