"""Losses and penalties in NumPy float64, from their formulas, one number after the other."""

from collections.abc import Callable

import numpy as np


def _log_sum_exp(row: list[float]) -> float:
    top = max(row)
    return top + float(np.log(sum(np.exp(x - top) for x in row)))


def softmax_cross_entropy(
    logits: np.ndarray,
    labels: np.ndarray,
    *,
    classes: np.ndarray | None = None,
    label_smoothing: float = 0.0,
    z_weight: float = 0.0,
) -> np.ndarray:
    """Return the losses of rows ``[n, k]``, over classes that ``classes`` does not take out."""
    losses = []
    for n, row in enumerate(logits.astype(np.float64)):
        there = [k for k, x in enumerate(row) if x > -np.inf and (classes is None or classes[n, k])]
        if not there:
            losses.append(0.0)
            continue
        top = max(row[k] for k in there)  # subtracted from both: 3e38 has no digits to spare
        log_sum = _log_sum_exp([row[k] - top for k in there])
        loss = 0.0
        for k in there:
            given = float(labels[n] == k) if labels.ndim == 1 else float(labels[n, k])
            y = (1 - label_smoothing) * given + label_smoothing / len(there)
            loss += y * (log_sum - (row[k] - top))
        losses.append(loss + z_weight * (top + log_sum) ** 2)
    return np.asarray(losses)


def z_loss(logits: np.ndarray, weight: float) -> np.ndarray:
    return np.asarray([weight * _log_sum_exp(list(row)) ** 2 for row in logits.astype(float)])


def sigmoid_binary_cross_entropy(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    pairs = zip(x.astype(float), y.astype(float), strict=True)
    return np.asarray([b * np.logaddexp(0, -a) + (1 - b) * np.logaddexp(0, a) for a, b in pairs])


def huber(errors: np.ndarray, delta: float) -> np.ndarray:
    return np.asarray(
        [
            e**2 / 2 if abs(e) <= delta else delta * (abs(e) - delta / 2)
            for e in errors.astype(float)
        ]
    )


def log_cosh(errors: np.ndarray) -> np.ndarray:
    return np.asarray([np.log1p(2 * np.sinh(e / 2) ** 2) for e in errors.astype(float)])


Params = dict[str, np.ndarray]


def critic_slope(params: Params, x: np.ndarray) -> np.ndarray:
    """Return the gradient of ``a . tanh(W x + b)`` by one sample ``x``."""
    hidden = np.tanh(params["w"] @ x + params["b"])
    slope = np.zeros(len(x))
    for j, h in enumerate(hidden):
        slope += params["a"][j] * (1 - h**2) * params["w"][j]
    return slope


def wgan_gp(
    params: Params,
    samples: np.ndarray,
    *,
    weight: float = 10.0,
    center: float = 1.0,
    one_sided: bool = False,
) -> float:
    """Return the penalty at samples that have been mixed already."""
    total = 0.0
    for x in samples.astype(np.float64):
        excess = float(np.sqrt(np.sum(critic_slope(params, x) ** 2))) - center
        total += max(excess, 0.0) ** 2 if one_sided else excess**2
    return weight * total / len(samples)


def squared_slope(params: Params, samples: np.ndarray) -> float:
    """Return the mean squared slope: R1 and R2 are ``weight / 2`` times it."""
    return float(
        np.mean([np.sum(critic_slope(params, x) ** 2) for x in samples.astype(np.float64)])
    )


def by_differences(function: Callable[[Params], float], params: Params) -> Params:
    """Return the gradient of a function of parameters by central differences."""
    step = 1e-5
    found = {}
    for name, values in params.items():
        gradient = np.zeros_like(values)
        for index in np.ndindex(values.shape):
            sides = []
            for sign in (1, -1):
                moved = {**params, name: values.copy()}
                moved[name][index] += sign * step
                sides.append(function(moved))
            gradient[index] = (sides[0] - sides[1]) / (2 * step)
        found[name] = gradient
    return found


def sam_ascent(
    params: np.ndarray, gradients: np.ndarray, *, rho: float, adaptive: bool, eta: float = 0.01
) -> np.ndarray:
    """Return the point uphill, as in Foret (2020), equation 2, and Kwon (2021), equation 8."""
    scale = [abs(w) + eta if adaptive else 1.0 for w in params.astype(float)]
    squares = sum((t * g) ** 2 for t, g in zip(scale, gradients.astype(float), strict=True))
    triples = zip(params.astype(float), scale, gradients.astype(float), strict=True)
    return np.asarray([w + rho * t**2 * g / np.sqrt(squares) for w, t, g in triples])


def soft_cap(logits: np.ndarray, cap: float) -> np.ndarray:
    return np.asarray([cap * np.tanh(x / cap) for x in logits.ravel()]).reshape(logits.shape)


def smooth_labels(labels: np.ndarray, alpha: float, there: np.ndarray | None = None) -> np.ndarray:
    """Return smoothed rows ``[n, k]``, over the classes that there are."""
    there = np.ones(labels.shape, bool) if there is None else there
    counts = there.sum(axis=1, keepdims=True)
    return np.where(there, (1 - alpha) * labels + alpha / np.maximum(counts, 1), 0.0)


def masked_mean(values: np.ndarray, where: np.ndarray) -> np.ndarray:
    counted = [x for x, there in zip(values.ravel(), where.ravel(), strict=True) if there]
    return np.asarray(sum(counted) / max(len(counted), 1))


def l1_penalty(weights: np.ndarray, weight: float) -> np.ndarray:
    return np.asarray(weight * sum(abs(w) for w in weights.ravel()))


def l2_penalty(weights: np.ndarray, weight: float) -> np.ndarray:
    return np.asarray(weight / 2 * sum(w**2 for w in weights.ravel()))


def slopes_by(function: Callable[..., np.ndarray], at: Params, by: str) -> np.ndarray:
    """Return the derivatives of every output by every entry of an argument: central differences."""
    columns = []
    for index in np.ndindex(at[by].shape):
        size = abs(float(at[by][index]))
        step = 1e-5 * max(1.0, size**0.5 if np.isfinite(size) else 1.0)
        sides = []
        for sign in (1, -1):
            moved = {**at, by: at[by].copy()}
            moved[by][index] += sign * step
            sides.append(np.asarray(function(**moved), np.float64))
        columns.append((sides[0] - sides[1]) / (2 * step))
    return np.stack(columns, axis=-1).reshape(np.shape(columns[0]) + at[by].shape)
