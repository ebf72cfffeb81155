"""Adam's moments, in arithmetic that low precision and large gradients cannot break."""

import math
import operator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.typing import ArrayLike, DTypeLike

from gradstable._core.checks import check_number, check_state, check_updates
from gradstable._core.numerics import increment, wide

# The square of a larger gradient leaves float32 no room.
_MAX_SQUARED = 2.0**62
# A decay rate that rounds to 1 (0.999 in bfloat16) would leave a second moment of zero.
_MAX_DECAY = 1.0 - 2.0**-20
_ROUNDED = (
    "In bfloat16 0.999 rounds to 1: give optax.inject_hyperparams hyperparam_dtype=jnp.float32"
)


def scale_by_adam(
    *,
    b1: ArrayLike = 0.9,
    b2: ArrayLike = 0.999,
    eps: ArrayLike = 1e-8,
    eps_root: ArrayLike = 0.0,
    mu_dtype: DTypeLike | None = None,
    nu_dtype: DTypeLike | None = None,
    nesterov: bool = False,
) -> optax.GradientTransformationExtraArgs:
    r"""Rescale gradients by Adam's rule, with moments that survive.

    Use it as ``optax.scale_by_adam``, whose state it shares (``optax.ScaleByAdamState``). It
    computes in float32 whatever the dtype of the gradients, so ``eps`` does not vanish in
    float16 (where optax's gives NaN for a zero gradient) and ``nu`` does not stall in
    bfloat16. An entry that is not finite, or above ``2**62``, whose square would make ``nu``
    infinite and freeze its weight for ever, leaves its moments as they are; these alone then
    make its update (``gs.guard`` rejects the whole step instead).

    .. math::
      \mu &\leftarrow b_1 \mu + (1 - b_1) g, \qquad
      \nu \leftarrow b_2 \nu + (1 - b_2) g^2 \\
      u &= \frac{\mu / (1 - b_1^t)}{\sqrt{\nu / (1 - b_2^t) + \epsilon_{root}} + \epsilon}

    Whatever the gradients, :math:`|u| \le (1-b_1) / \sqrt{1-b_2} / \sqrt{1-b_1^2/b_2}`: 7.27
    with the defaults, 1.17 with ``b2=0.95``.

    Args:
      b1: decay of the first moment, in [0, 1). Default 0.9 (the paper's).
      b2: decay of the second moment, in [0, 1). Default 0.999 (the paper's); 0.95 to 0.98
        forgets a spike, and a quiet time, much sooner.
      eps: added outside the root, in units of the gradient, >= 0. Default 1e-8 (the paper's).
      eps_root: added inside the root, >= 0. Default 0; needed to differentiate through.
      mu_dtype: dtype in which ``mu`` is stored. Default float32 (wider for wider parameters).
      nu_dtype: the same for ``nu``. bfloat16 stalls with ``b2`` above 0.99.
      nesterov: whether ``mu`` looks one step ahead, as in NAdam (as ``optax.adam``).

    Returns:
      A ``GradientTransformationExtraArgs``; updates have the structure and the dtypes of the
      gradients, the state is ``optax.ScaleByAdamState(count, mu, nu)``.

    Raises:
      ValueError: if a hyper-parameter is out of its range.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradstable as gs
      >>> tx = gs.scale_by_adam(b2=0.95)
      >>> g = jnp.array([2.0, -0.5, 0.0], jnp.float16)
      >>> tx.update(g, tx.init(g))[0].tolist()
      [1.0, -1.0, 0.0]

    Source:
      Kingma, Ba, "Adam: A Method for Stochastic Optimization", 2014, arXiv:1412.6980; the
      Nesterov form as in Dozat, "Incorporating Nesterov Momentum into Adam", 2016.
    """
    return adam_transform(
        b1=b1,
        b2=b2,
        eps=eps,
        eps_root=eps_root,
        mu_dtype=mu_dtype,
        nu_dtype=nu_dtype,
        nesterov=nesterov,
        guarded=False,
    )


def adam_transform(
    *,
    b1: ArrayLike,
    b2: ArrayLike,
    eps: ArrayLike,
    eps_root: ArrayLike,
    mu_dtype: DTypeLike | None,
    nu_dtype: DTypeLike | None,
    nesterov: bool,
    guarded: bool,
) -> optax.GradientTransformationExtraArgs:
    """Make ``scale_by_adam``; ``guarded`` where a guard around it lets no bad entry in."""
    for name, decay in (("b1", b1), ("b2", b2)):
        check_number(name, decay, at_least=0.0, below=1.0, hint=_ROUNDED)
    check_number("eps", eps, at_least=0.0)
    check_number("eps_root", eps_root, at_least=0.0)

    def init_fn(params: optax.Params) -> optax.ScaleByAdamState:
        def zeros(dtype: DTypeLike | None, *, squared: bool) -> Any:
            def like(param: ArrayLike) -> jax.Array:
                default = wide(jnp.result_type(param))
                default = jnp.finfo(default).dtype if squared else default
                return jnp.zeros_like(param, dtype=default if dtype is None else dtype)

            return jax.tree.map(like, params)

        return optax.ScaleByAdamState(
            count=jnp.zeros((), jnp.int32),
            mu=zeros(mu_dtype, squared=False),
            nu=zeros(nu_dtype, squared=True),
        )

    def update_fn(
        updates: optax.Updates,
        state: optax.OptState,
        params: optax.Params | None = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, optax.ScaleByAdamState]:
        del extra_args
        old = check_state(state, optax.ScaleByAdamState, "scale_by_adam")
        check_updates(updates, params)
        count = increment(jnp.asarray(old.count))
        first, second = Decay.of(b1, count), Decay.of(b2, count)

        def adam(g: jax.Array, mu: jax.Array, nu: jax.Array) -> _Moved:
            sound = None if guarded else jnp.abs(g.astype(wide(g.dtype))) <= _MAX_SQUARED
            return _adam_leaf(g, mu, nu, sound, first, second, eps, eps_root, nesterov)

        moved = jax.tree.map(adam, updates, old.mu, old.nu)
        is_moved = lambda node: isinstance(node, _Moved)  # noqa: E731
        new_updates, mu, nu = (
            jax.tree.map(operator.itemgetter(i), moved, is_leaf=is_moved) for i in range(3)
        )
        return new_updates, optax.ScaleByAdamState(count=count, mu=mu, nu=nu)

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


class Decay(NamedTuple):
    """A decay rate at one step, in float32, without the loss of digits in ``1 - rate``."""

    keep: jax.Array  # b
    take: jax.Array  # 1 - b
    corrects: jax.Array  # 1 - b**t
    next_corrects: jax.Array  # 1 - b**(t + 1)

    @classmethod
    def of(cls, rate: ArrayLike, count: jax.Array) -> "Decay":
        """Return the rate at step ``count`` (the first step is 1)."""
        t = count.astype(jnp.float32)
        if isinstance(rate, (int, float)):
            keep, take = jnp.float32(rate), jnp.float32(1.0 - rate)
            log = jnp.float32(math.log(rate) if rate else -math.inf)
        else:
            keep = jnp.minimum(jnp.asarray(rate, jnp.float32), _MAX_DECAY)
            take, log = 1.0 - keep, jnp.log(keep)
        return cls(keep, take, -jnp.expm1(t * log), -jnp.expm1((t + 1.0) * log))


class _Moved(NamedTuple):
    update: jax.Array
    mu: jax.Array
    nu: jax.Array


def _adam_leaf(
    g: jax.Array,
    mu: jax.Array,
    nu: jax.Array,
    sound: jax.Array | None,
    b1: Decay,
    b2: Decay,
    eps: ArrayLike,
    eps_root: ArrayLike,
    nesterov: bool,
) -> _Moved:
    x = g.astype(wide(g.dtype))
    real = jnp.finfo(x.dtype).dtype
    mu_wide, nu_wide = mu.astype(x.dtype), nu.astype(real)
    new_mu = b1.keep.astype(x.dtype) * mu_wide + b1.take.astype(x.dtype) * x
    new_nu = b2.keep.astype(real) * nu_wide + b2.take.astype(real) * _abs_square(x)
    if sound is not None:
        # Selected here, so that all that follows reads what is kept: see gradstable/hold.py.
        new_mu = jnp.where(sound, new_mu, mu_wide)
        new_nu = jnp.where(sound, new_nu, nu_wide)

    mu_hat = new_mu / b1.corrects.astype(x.dtype)
    if nesterov:
        ahead = b1.keep / b1.next_corrects, b1.take / b1.corrects
        looked = ahead[0].astype(x.dtype) * new_mu + ahead[1].astype(x.dtype) * x
        mu_hat = looked if sound is None else jnp.where(sound, looked, mu_hat)
    root = jnp.sqrt(new_nu / b2.corrects.astype(real) + jnp.asarray(eps_root, real))
    denominator = root + jnp.asarray(eps, real)
    update = mu_hat / denominator.astype(x.dtype)
    if not _is_positive(eps):
        update = jnp.where(denominator > 0, update, 0.0)  # 0 / 0: no gradient yet, no step
    return _Moved(
        update=update.astype(g.dtype), mu=_store(new_mu, mu.dtype), nu=_store(new_nu, nu.dtype)
    )


def _is_positive(eps: ArrayLike) -> bool:
    """Whether eps is known to be positive, also after rounding to float32."""
    return isinstance(eps, (int, float)) and bool(np.float32(eps) > 0)


def _abs_square(x: jax.Array) -> jax.Array:
    return x.real * x.real + x.imag * x.imag if jnp.iscomplexobj(x) else x * x


def _store(value: jax.Array, dtype: DTypeLike) -> jax.Array:
    """Cast to the dtype of a state; what float16 cannot hold becomes its largest number."""
    if value.dtype == dtype:
        return value
    if jnp.iscomplexobj(value):
        return value.astype(dtype)
    largest = float(jnp.finfo(dtype).max)
    return jnp.clip(value, -largest, largest).astype(dtype)
