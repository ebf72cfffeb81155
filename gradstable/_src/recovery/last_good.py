"""The last good parameters, read from the state."""

from typing import Any

import jax.numpy as jnp

from gradstable._src.core.find import find_one
from gradstable._src.core.names import named_again
from gradstable._src.core.select import run_branch
from gradstable._src.core.types import Tree
from gradstable._src.recovery.snapshot import kept_params_of, params_of
from gradstable._src.recovery.turn import RollbackState


def last_good(opt_state: object) -> Any:
    """Return the parameters of the newest copy that ``gs.rollback`` keeps.

    Use it when ``gs.check`` has raised, to save the good parameters or continue from them.

    Args:
      opt_state: a state with one ``gs.rollback`` in it, or an ``nnx.Optimizer`` or a
        ``TrainState``.

    Returns:
      A tree like the parameters, in the dtypes of the copy. Named tuples in it become tuples.

    Raises:
      ValueError: if there is no rollback in the state, or more than one.

    Example:
      >>> import jax.numpy as jnp
      >>> import optax
      >>> import gradstable as gs
      >>> state = gs.rollback(gs.guard(optax.sgd(0.1))).init(jnp.ones(2))
      >>> gs.recovery.last_good(state).tolist()
      [1.0, 1.0]
    """
    return named_again(kept_params_of(_the_state(opt_state).snapshots))


def restored(opt_state: object, params: Tree) -> Tree:
    """Return the parameters, or the last good ones while ``gs.rollback`` is rolling back.

    Call it after ``optax.apply_updates`` if you chose ``restore_by="caller"``, which saves one word
    of memory traffic per parameter, or to restore bit for bit where no update can (a NaN or a
    -0.0): ``params = gs.recovery.restored(opt_state, optax.apply_updates(params, updates))``. It
    uses a condition, so that nothing extra is read in other steps.

    Args:
      opt_state: the state after the update, as for ``gs.recovery.last_good``.
      params: the parameters after the update.

    Returns:
      A tree with the structure and the dtypes of ``params``.

    Raises:
      ValueError: if there is no rollback in the state, or more than one.

    Example:
      >>> import jax.numpy as jnp
      >>> import optax
      >>> import gradstable as gs
      >>> tx = gs.rollback(gs.guard(optax.sgd(0.1)), rejections=1, restore_by="caller")
      >>> params = jnp.array([-0.0, 1.0])
      >>> state = tx.init(params)
      >>> for _ in range(2):
      ...     _, state = tx.update(jnp.full(2, jnp.nan), state, params, value=1.0)
      >>> gs.recovery.restored(state, jnp.full(2, jnp.nan)).tolist()
      [-0.0, 1.0]
    """
    state = _the_state(opt_state)
    going = jnp.asarray(state.attempts > 0, jnp.int32)
    return run_branch(going, (lambda: params, lambda: params_of(state.snapshots, params)))


def _the_state(opt_state: object) -> RollbackState:
    wrap = "gradstable.rollback(gradstable.guard(optax.adamw(3e-4)))"
    return find_one(opt_state, RollbackState, name="rollback", wrap=wrap)
