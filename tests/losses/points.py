"""Points at which losses are differentiated: ordinary ones, and those at which code selects."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import gradstable as gs
from tests.oracles import losses as oracle

RNG = np.random.default_rng(0)
INF = np.inf


@dataclasses.dataclass(frozen=True)
class Point:
    """One loss at one point.

    Attributes:
      name: of the loss.
      label: what is special about the point.
      oracle: the loss in NumPy, of the numbers below by name.
      at: the numbers by which it is differentiated.
      call: the loss as a function of the same; its arguments are those of ``at`` by default.
      fixed: the other arguments.
      through: arguments that ``call`` takes elsewhere than by name, as the parameters of a critic.
    """

    name: str
    label: str
    oracle: Callable[..., Any]
    at: Mapping[str, np.ndarray]
    call: Callable[..., jax.Array] | None = None
    fixed: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    through: frozenset[str] = frozenset()

    def __str__(self) -> str:
        return f"{self.name}, {self.label}"

    def loss(self, **numbers: jax.Array) -> jax.Array:
        """Return what the loss returns at other numbers."""
        return (self.call or getattr(gs.losses, self.name))(**numbers, **self.fixed)


def array(values: Any) -> np.ndarray:
    return np.asarray(values, np.float64)


LOGITS, SHARES = RNG.normal(size=(2, 3)), RNG.dirichlet(np.ones(3), 2)
ONE_HOT = array([[0, 1, 0], [0, 0, 1]])
FIRST_TWO = np.asarray([[True, True, False], [True, True, False]])
ROWS = np.asarray([True, False])
MASKED = array([[0.5, -1.0, -INF], [2.0, 1.0, -INF]])
OF_MASKED = array([[0.3, 0.7, 0], [0, 1, 0]])


def _softmax(
    label: str, logits: np.ndarray, labels: np.ndarray, there: np.ndarray | None = None
) -> Point:
    numbers = {"label_smoothing": array(0.2), "z_weight": array(0.05)}

    def theirs(logits: np.ndarray, labels: np.ndarray, **numbers: np.ndarray) -> np.ndarray:
        options = {name: float(number) for name, number in numbers.items()}
        classes = there
        if there is not None and there.ndim == 1:
            classes = np.broadcast_to(there[:, None], logits.shape)
        return oracle.softmax_cross_entropy(logits, labels, classes=classes, **options)

    fixed = {} if there is None else {"where": there}
    at = {"logits": logits, "labels": labels, **numbers}
    return Point("softmax_cross_entropy", label, theirs, at, fixed=fixed)


SOFTMAX = [
    _softmax("anywhere", LOGITS, SHARES),
    _softmax("labels 0 and 1", LOGITS, ONE_HOT),
    _softmax("all labels 0", LOGITS, array(np.zeros((2, 3)))),
    _softmax("equal logits", array(np.ones((2, 3))), ONE_HOT),
    _softmax("a probability of 0", array([[0, 900, -900], [800, 0, 800]]), ONE_HOT),
    _softmax("classes taken out, with labels of 0", LOGITS, OF_MASKED, FIRST_TWO),
    _softmax("classes taken out, with labels", LOGITS, SHARES, FIRST_TWO),
    _softmax("a row taken out", LOGITS, ONE_HOT, ROWS),
    _softmax("classes of -inf", MASKED, OF_MASKED),
]


def _pairs(name: str, theirs: Callable[..., Any], errors: list[float], label: str) -> Point:
    targets = array(np.linspace(-0.5, 1.0, len(errors)))
    at = {"predictions": array(errors) + targets, "targets": targets}
    if name == "huber":
        at["delta"] = array(1.0)
    return Point(name, label, theirs, at)


def _huber(predictions: np.ndarray, targets: np.ndarray, delta: np.ndarray) -> np.ndarray:
    return oracle.huber(predictions - targets, float(delta))


def _log_cosh(predictions: np.ndarray, targets: np.ndarray) -> np.ndarray:
    return oracle.log_cosh(predictions - targets)


ERRORS = [0.0, 1e-3, -0.4, 3.0, -7.0]
LABELS = array([0, 1, 0, 1, 0.3, 0, 1])
ENTRIES = [
    _pairs("huber", _huber, ERRORS, "differences of 0 and others"),
    _pairs("huber", _huber, [1.0, -1.0], "differences of delta"),
    _pairs("log_cosh", _log_cosh, [*ERRORS, 1.0], "differences of 0 and others"),
    Point(
        "sigmoid_binary_cross_entropy",
        "labels 0 and 1, logits 0 and huge",
        lambda logits, labels: oracle.sigmoid_binary_cross_entropy(logits, labels),
        {"logits": array([0, 0, 3, -3, 1, 800, -800]), "labels": LABELS},
    ),
    Point(
        "sigmoid_binary_cross_entropy",
        "entries taken out",
        lambda logits, labels: oracle.sigmoid_binary_cross_entropy(logits, labels) * ROWS,
        {"logits": array([0.0, 2.0]), "labels": array([0.0, 1.0])},
        fixed={"where": ROWS},
    ),
    Point(
        "z_loss",
        "equal logits and others",
        lambda logits, weight: oracle.z_loss(logits, float(weight)),
        {"logits": array([[1, 1, 1], [0, 900, -900], [1, 2, -3]]), "weight": array(0.1)},
    ),
    Point(
        "soft_cap",
        "zero, the cap, and far out",
        lambda logits, cap: oracle.soft_cap(logits, float(cap)),
        {"logits": array([0, 0.5, -3, 30, 1e4]), "cap": array(3.0)},
    ),
    Point(
        "smooth_labels",
        "labels 0 and 1",
        lambda labels, alpha: oracle.smooth_labels(labels, float(alpha)),
        {"labels": ONE_HOT, "alpha": array(0.1)},
    ),
    Point(
        "smooth_labels",
        "classes taken out",
        lambda labels, alpha: oracle.smooth_labels(labels, float(alpha), FIRST_TWO),
        {"labels": OF_MASKED, "alpha": array(0.1)},
        fixed={"where": FIRST_TWO},
    ),
    Point(
        "masked_mean",
        "entries taken out, values of 0",
        lambda values: oracle.masked_mean(values, FIRST_TWO),
        {"values": array([[0, 1, 2], [3, 0, 5]])},
        fixed={"where": FIRST_TWO},
    ),
    Point(
        "l1_penalty",
        "anywhere",
        lambda params, weight: oracle.l1_penalty(params, float(weight)),
        {"params": array([[1, -2], [3, -4]]), "weight": array(0.5)},
    ),
    Point(
        "l1_penalty",
        "weights of 0, which stay",
        lambda params, weight: oracle.l1_penalty(params, float(weight)),
        {"params": array([0.0, -2.0]), "weight": array(0.5)},
    ),
    Point(
        "l2_penalty",
        "weights of 0 and others",
        lambda params, weight: oracle.l2_penalty(params, float(weight)),
        {"params": array([0.0, -2.0]), "weight": array(0.5)},
    ),
]

CRITIC = {"w": RNG.normal(size=(4, 3)), "b": RNG.normal(size=4), "a": 2 * RNG.normal(size=4)}
FLAT = {**CRITIC, "a": array(np.zeros(4))}
REAL, FAKE = RNG.normal(size=(2, 3)), RNG.normal(size=(2, 3)) + 1
KEY = jax.random.key(3)


def _critic(w: jax.Array, b: jax.Array, a: jax.Array) -> Callable[[jax.Array], jax.Array]:
    return lambda x: jnp.tanh(x @ w.T + b) @ a


def _penalty(name: str) -> Callable[..., jax.Array]:
    def call(w: jax.Array, b: jax.Array, a: jax.Array, **given: Any) -> jax.Array:
        return getattr(gs.losses, name)(_critic(w, b, a), **given)

    return call


def _gradient_penalty(
    real: np.ndarray, fake: np.ndarray, weight: float, center: float, **params: np.ndarray
) -> np.ndarray:
    share = np.asarray(jax.random.uniform(KEY, (len(real),), np.float32), np.float64)[:, None]
    samples = share * real + (1 - share) * fake
    return np.asarray(oracle.wgan_gp(params, samples, weight=float(weight), center=float(center)))


def _squared(factor: float, samples: str) -> Callable[..., np.ndarray]:
    def theirs(weight: float, **given: np.ndarray) -> np.ndarray:
        params = {name: given[name] for name in CRITIC}
        return np.asarray(factor * float(weight) * oracle.squared_slope(params, given[samples]))

    return theirs


def _slopes(name: str, samples: str, factor: float, params: oracle.Params, label: str) -> Point:
    at = {**params, samples: REAL, "weight": array(3.0)}
    through = frozenset(CRITIC)
    return Point(name, label, _squared(factor, samples), at, call=_penalty(name), through=through)


SQUARED = {"r1": ("real", 0.5), "r2": ("fake", 0.5), "input_gradient": ("inputs", 1.0)}
GAP = {"real": REAL, "fake": FAKE, "weight": array(3.0), "center": array(1.0)}
GAN = {"call": _penalty("wgan_gp"), "fixed": {"key": KEY}, "through": frozenset(CRITIC)}
PENALTIES = [
    Point("wgan_gp", "anywhere", _gradient_penalty, {**CRITIC, **GAP}, **GAN),
    Point(
        "wgan_gp",
        "a slope of 0, which has no direction",
        _gradient_penalty,
        {**FLAT, **GAP},
        **GAN,
    ),
    *(_slopes(name, *of, CRITIC, "anywhere") for name, of in SQUARED.items()),
    *(_slopes(name, *of, FLAT, "a slope of 0") for name, of in SQUARED.items()),
]


def _ascent(params: np.ndarray, gradients: np.ndarray, rho: float, eta: float = 0.0) -> np.ndarray:
    return oracle.sam_ascent(params, gradients, rho=float(rho), adaptive=bool(eta), eta=float(eta))


def _at_the_worst(params: np.ndarray, rho: float) -> np.ndarray:
    """The value of ``sum(w**4)`` uphill."""
    return np.asarray(np.sum(_ascent(params, 4 * params**3, rho) ** 4))


def _value(adaptive: bool = False, **given: Any) -> jax.Array:
    return gs.losses.sam_gradients(lambda w: jnp.sum(w**4), adaptive=adaptive, **given)[0]


W, G = array([1.0, -2.0, 0.5]), array([3.0, 0.0, -4.0])
SAM = [
    Point("sam_ascent", "an entry of 0", _ascent, {"params": W, "gradients": G, "rho": array(0.3)}),
    Point(
        "sam_ascent",
        "adaptive, a weight of 0",
        _ascent,
        {"params": array([1.0, -2.0, 0.0]), "gradients": G, "rho": array(0.3), "eta": array(0.1)},
        fixed={"adaptive": True},
    ),
    Point(
        "sam_ascent",
        "a gradient of 0, from which nothing ascends",
        lambda params, gradients, rho: params,
        {"params": W, "gradients": array(np.zeros(3)), "rho": array(0.3)},
    ),
    Point(
        "sam_gradients",
        "the value, uphill",
        _at_the_worst,
        {"params": W, "rho": array(0.3)},
        call=_value,
    ),
    Point(
        "sam_gradients",
        "the value, adaptive",
        lambda params, rho, eta: np.sum(_ascent(params, 4 * params**3, rho, eta) ** 4),
        {"params": W, "rho": array(0.3), "eta": array(0.1)},
        call=_value,
        fixed={"adaptive": True},
    ),
]

POINTS = [*SOFTMAX, *ENTRIES, *PENALTIES, *SAM]
