"""Find and read the health of a run in any optimizer state."""

from gradstable._src.core.find import find_all
from gradstable._src.core.ledger import Ledger
from gradstable._src.core.types import Health


def health(opt_state: object) -> Health:
    """Return the health numbers of a run.

    It works on the states that ``init`` and ``update`` return, however deep the guard is in
    chains, masks and wrappers, inside ``jit`` and outside, and also on ``flax.nnx.Optimizer`` and
    ``flax.training.train_state.TrainState`` objects or their ``opt_state``.

    Args:
      opt_state: an optimizer state that contains exactly one guard (or judging transform). For
        several, pass the part you mean; ``explain`` reports all of them.

    Returns:
      A ``Health`` of scalar arrays, on device. Reading one of them waits for the step, so on an
      accelerator look only every few steps, or fetch all in one go with ``jax.device_get``.

    Raises:
      ValueError: if there is no guard, or more than one.

    Example:
      >>> import jax.numpy as jnp
      >>> import optax
      >>> import gradstable as gs
      >>> tx = gs.guard(optax.sgd(0.1))
      >>> state = tx.init(jnp.ones(2))
      >>> _, state = tx.update(jnp.array([3.0, 4.0]), state)
      >>> float(gs.health(state).grad_norm)
      5.0
    """
    ledgers = find_ledgers(opt_state)
    if len(ledgers) == 1:
        return ledgers[0][1].health
    places = ", ".join(f"opt_state{path}" for path, _ in ledgers)
    msg = f"{len(ledgers)} guards found ({places}): pass the part of the state that you mean"
    raise ValueError(msg)


def find_ledgers(opt_state: object) -> list[tuple[str, Ledger]]:
    """Return path and ledger of each judging transform in a state; raise if there is none."""
    ledgers = [
        (path.removesuffix(".ledger"), ledger) for path, ledger in find_all(opt_state, Ledger)
    ]
    if not ledgers:
        msg = (
            "no guard found in this optimizer state: wrap your optimizer, as in "
            "gradstable.guard(optax.adamw(3e-4)), and pass the state of the wrapped one"
        )
        raise ValueError(msg)
    return ledgers
