"""Programs that became NaN in public bug reports, made small: one line of each is marked.

Each is a loss of parameters ``[4, 4]`` and of eight examples ``[8, 4]``; in a healthy batch it is
finite, as are its gradients.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

X = jnp.asarray(np.random.default_rng(0).uniform(0.5, 1.5, size=(8, 4)), jnp.float32)
W = jnp.eye(4) + 0.1
ZERO = X.at[3].set(0.0)


class Case(NamedTuple):
    """A program, and what is to be found.

    Attributes:
      loss: the program.
      batch: the batch that breaks it.
      operation: the primitive that is to blame.
      backward: whether only its derivative breaks.
      examples: the broken examples; empty where it is about all of them.
      reason: what its reason contains.
    """

    loss: Callable[[jax.Array, jax.Array], jax.Array]
    batch: jax.Array
    operation: str
    backward: bool
    examples: tuple[int, ...]
    reason: str


def squared_norm(w: jax.Array, x: jax.Array) -> jax.Array:
    """jax-ml/jax#4177: the square of a norm has a derivative at 0, the norm has none."""
    return jnp.mean(jnp.linalg.norm(x @ w, axis=-1) ** 2)  # here


def angle_where(w: jax.Array, x: jax.Array) -> jax.Array:
    """jax-ml/jax#1052: ``where`` hides the angle of (0, 0), but not its derivative."""
    h = x @ w
    angle = jnp.arctan2(h[:, 0], h[:, 1])  # here
    return jnp.mean(jnp.where(jnp.abs(h[:, 1]) > 0.0, angle, 0.0))


def distance_of_distributions(w: jax.Array, x: jax.Array) -> jax.Array:
    """jax-ml/jax#15798: the arccos of an overlap that has converged to 1."""
    p, q = jax.nn.softmax(x @ w), jax.nn.softmax(3.0 * x)
    overlap = jnp.minimum(jnp.sum(jnp.sqrt(p * q), axis=-1) + 1e-6, 1.0)
    return jnp.mean(jnp.arccos(overlap))  # here


def eigenvectors(w: jax.Array, x: jax.Array) -> jax.Array:
    """jax-ml/jax#4646: eigenvectors of equal eigenvalues."""
    _, vectors = jnp.linalg.eigh(w + w.T + jnp.diag(x.sum(0)))  # here
    return jnp.sum(vectors[0] * x.mean(0))


def singular_vectors(w: jax.Array, x: jax.Array) -> jax.Array:
    """jax-ml/jax#8732: singular vectors of equal singular values."""
    u, *_ = jnp.linalg.svd(w[0, 0] * jnp.eye(4))  # here
    return jnp.sum(u[0] * jnp.arange(4.0)) * x.mean()


def fast_variance(w: jax.Array, x: jax.Array) -> jax.Array:
    """google/flax#1491: a variance as a difference of means, negative from rounding."""
    h = x @ w
    var = jnp.mean(h**2, axis=-1) - jnp.mean(h, axis=-1) ** 2
    return jnp.mean(h[:, 0] * jax.lax.rsqrt(var + 1e-6))  # here


def cosine_similarity(w: jax.Array, x: jax.Array) -> jax.Array:
    """google-deepmind/optax#946: embeddings divided by a norm that is 0."""
    h = x @ w
    h = h / jnp.linalg.norm(h, axis=-1, keepdims=True)  # here
    return jnp.mean(h @ h.T)


def unit_direction(w: jax.Array, x: jax.Array) -> jax.Array:
    """google-deepmind/optax#1743: a gradient inside the loss, divided by its norm."""
    inner = jax.vmap(jax.grad(lambda row: jnp.sum((row @ w) ** 2)))(x)
    norms = jnp.sqrt(jnp.sum(inner**2, axis=-1, keepdims=True) + 1e-30)
    return jnp.mean(jnp.sum(inner / (norms - 1e-15), axis=-1))  # here


def importance_ratio(w: jax.Array, x: jax.Array) -> jax.Array:
    """radixark/miles#1363: a ratio that overflows, times an advantage of 0."""
    log_ratio = 100.0 * (x @ w)[:, 0] - 150.0
    ratio = jnp.exp(log_ratio)  # here
    advantage = jnp.where(jnp.arange(8) == 3, 0.0, 1.0)
    return -jnp.mean(jnp.minimum(ratio * advantage, jnp.clip(ratio, 0.8, 1.2) * advantage))


def power_of_zero(w: jax.Array, x: jax.Array) -> jax.Array:
    """jax-ml/jax#7440: the derivative of a root written as a power."""
    return jnp.mean(jnp.abs(x @ w) ** 0.5)  # here


def axis_angle(w: jax.Array, x: jax.Array) -> jax.Array:
    """gbionics/jaxsim#339: the axis of a rotation by no angle."""
    vector = x @ w
    angle = jnp.sqrt(jnp.sum(vector**2, axis=-1, keepdims=True))  # here
    axis = jnp.where(angle > 0.0, vector / angle, 0.0)
    return jnp.mean(axis * jnp.sin(jnp.sum(vector, axis=-1, keepdims=True)))


def rotation_logarithm(w: jax.Array, x: jax.Array) -> jax.Array:
    """brentyi/jaxlie#9: a factor with ``w`` in the denominator, taken only where it is not 0."""
    h = x @ w
    norm, scalar = jnp.sum(h[:, 1:] ** 2, axis=-1) + 1.0, h[:, 0]
    factor = jnp.where(jnp.abs(scalar) < 1e-6, 0.0, jnp.arctan(norm / scalar))  # here
    return jnp.mean(factor)


def kernel_on_the_diagonal(w: jax.Array, x: jax.Array) -> jax.Array:
    """jax-ml/jax#26248: the distance of a point from itself in a kernel."""
    h = x @ w
    distances = jnp.linalg.norm(h[:, None] - h[None], axis=-1)  # here
    return jnp.mean(jnp.exp(-distances))


def masked_attention(w: jax.Array, x: jax.Array) -> jax.Array:
    """pytorch/pytorch#41508: attention of a query all of whose keys are masked."""
    seen = jnp.broadcast_to(x[:, :1] > 0.0, (8, 8))
    scores = jnp.where(seen, (x @ w) @ x.T, -jnp.inf)
    return jnp.mean(jax.nn.softmax(scores, axis=-1) @ x)  # here


def standard_deviation(w: jax.Array, x: jax.Array) -> jax.Array:
    """A standard deviation of numbers that are all the same has no derivative."""
    return jnp.mean(jnp.std(x @ w, axis=-1))  # here


def gumbel(w: jax.Array, x: jax.Array) -> jax.Array:
    """Noise from uniform numbers of which one is 0."""
    uniform = jnp.clip(x / 2.0, 0.0, 0.99)
    noise = -jnp.log(-jnp.log(uniform))  # here
    return jnp.mean(jax.nn.softmax(x @ w + noise)[:, 0] * jnp.mean(noise))


def divergence(w: jax.Array, x: jax.Array) -> jax.Array:
    """A Kullback-Leibler divergence from targets of which one is 0."""
    target = x / jnp.maximum(x.sum(-1, keepdims=True), 1e-9)
    return jnp.mean(target * (jnp.log(target) - jax.nn.log_softmax(x @ w)))  # here


def logsumexp_by_hand(w: jax.Array, x: jax.Array) -> jax.Array:
    """A partition function without the largest logit taken out."""
    logits = 30.0 * (x @ w)
    return jnp.mean(jnp.log(jnp.sum(jnp.exp(logits), axis=-1)))  # here


def half_precision_scores(w: jax.Array, x: jax.Array) -> jax.Array:
    """Scores of attention in float16 before they are scaled."""
    h = (x @ w).astype(jnp.float16)
    scores = jnp.einsum("id,jd->ij", h, h)  # here
    return jnp.mean(jax.nn.softmax(scores.astype(jnp.float32) / 1e4))


def half_precision_cast(w: jax.Array, x: jax.Array) -> jax.Array:
    """A loss scale that is too high for one example."""
    scaled = (2.0**10 * jnp.sum((x @ w) ** 2, axis=-1)).astype(jnp.float16)  # here
    return jnp.mean(scaled.astype(jnp.float32))


def covariance(w: jax.Array, x: jax.Array) -> jax.Array:
    """A covariance that is not positive definite: one direction is missing."""
    h = (x - x.mean(0)) @ w
    factor = jnp.linalg.cholesky(h.T @ h - 1e-3 * jnp.eye(4))  # here
    return jnp.sum(jnp.log(jnp.diagonal(factor)))


def linear_system(w: jax.Array, x: jax.Array) -> jax.Array:
    """A triangular system with a 0 on its diagonal."""
    lower = jnp.tril(w) * jnp.min(x)
    return jnp.mean(jax.scipy.linalg.solve_triangular(lower, x.T, lower=True))  # here


def inverse_tanh(w: jax.Array, x: jax.Array) -> jax.Array:
    """The log-probability of an action that tanh has rounded to 1."""
    action = jnp.tanh(x @ w)
    return jnp.mean(jnp.arctanh(action) ** 2)  # here


def second_moment(w: jax.Array, x: jax.Array) -> jax.Array:
    """A normalized step inside the loss, without an epsilon."""
    g = x * (x @ w)
    return jnp.mean(g / jnp.sqrt(g**2))  # here


LARGE, ONES = X.at[3].set(40.0), X.at[3].set(1.0)
SAME = jnp.ones_like(X)
# Numbers that differ only in the last digits: their variance rounds to less than 0.
LEVEL = X.at[3].set(jnp.asarray([1000.0, 1000.1, 1000.2, 1000.1]))

CASES = (
    Case(squared_norm, ZERO, "div", backward=True, examples=(3,), reason="division by 0"),
    Case(angle_where, ZERO, "div", backward=True, examples=(3,), reason="0 divided by 0"),
    Case(
        distance_of_distributions, ZERO, "rsqrt", backward=True, examples=(3,), reason="root of 0"
    ),
    Case(eigenvectors, SAME, "integer_pow", backward=True, examples=(), reason="negative power"),
    Case(singular_vectors, X, "div", backward=True, examples=(), reason="by 0"),
    Case(fast_variance, LEVEL, "rsqrt", backward=False, examples=(3,), reason="root"),
    Case(cosine_similarity, ZERO, "div", backward=False, examples=(3,), reason="0 divided by 0"),
    Case(unit_direction, ZERO, "div", backward=False, examples=(3,), reason="by 0"),
    Case(importance_ratio, LARGE, "exp", backward=False, examples=(3,), reason="largest float32"),
    Case(power_of_zero, ZERO, "pow", backward=True, examples=(3,), reason="0 to a negative power"),
    Case(axis_angle, ZERO, "div", backward=True, examples=(3,), reason="by 0"),
    Case(rotation_logarithm, ZERO, "integer_pow", True, examples=(3,), reason="negative power"),
    Case(kernel_on_the_diagonal, X, "div", backward=True, examples=(), reason="division by 0"),
    Case(masked_attention, -ZERO, "sub", backward=False, examples=(), reason="infinities"),
    Case(standard_deviation, ZERO, "div", backward=True, examples=(3,), reason="by 0"),
    Case(gumbel, X.at[3, 0].set(0.0), "log", backward=False, examples=(3,), reason="of 0"),
    Case(divergence, X.at[3, 0].set(0.0), "log", backward=False, examples=(3,), reason="of 0"),
    Case(logsumexp_by_hand, LARGE, "exp", backward=False, examples=(3,), reason="3.40282e+38"),
    Case(half_precision_scores, 4 * LARGE, "dot_general", False, (3,), "largest float16 is 65504"),
    Case(half_precision_cast, LARGE, "convert_element_type", False, (3,), "float16 is 65504"),
    Case(covariance, SAME, "cholesky", backward=False, examples=(), reason="positive definite"),
    Case(linear_system, ZERO, "triangular_solve", False, examples=(3,), reason="singular"),
    Case(inverse_tanh, LARGE, "atanh", backward=False, examples=(3,), reason="arctanh of 1"),
    Case(second_moment, ZERO, "div", backward=False, examples=(3,), reason="0 divided by 0"),
)
