"""What came out of Adam, in NumPy float64, each from its paper."""

import math

import numpy as np


def adamax(
    gradients: np.ndarray, *, b1: float = 0.9, b2: float = 0.999, eps: float = 1e-8
) -> np.ndarray:
    """Kingma and Ba (2014), algorithm 2; eps as in torch."""
    m, u = np.zeros(gradients.shape[1:]), np.zeros(gradients.shape[1:])
    out = []
    for t, g in enumerate(gradients.astype(np.float64), start=1):
        m = b1 * m + (1 - b1) * g
        u = np.maximum(b2 * u, np.abs(g) + eps)
        out.append(m / (1 - b1**t) / u)
    return np.stack(out)


def amsgrad(
    gradients: np.ndarray,
    *,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    eps_root: float = 0.0,
    bias_correction_mu: bool = True,
    bias_correction_nu: bool = True,
    correct_maximum: bool = False,
) -> np.ndarray:
    """Reddi et al. (2018), algorithm 2, with the corrections of optax or of torch."""
    shape = gradients.shape[1:]
    m, v, v_max = np.zeros(shape), np.zeros(shape), np.zeros(shape)
    out = []
    for t, g in enumerate(gradients.astype(np.float64), start=1):
        m = b1 * m + (1 - b1) * g
        v = b2 * v + (1 - b2) * g**2
        correction = 1 - b2**t if bias_correction_nu else 1.0
        if correct_maximum:
            v_max = np.maximum(v_max, v)
            v_hat = v_max / correction
        else:
            v_max = np.maximum(v_max, v / correction)
            v_hat = v_max
        m_hat = m / (1 - b1**t) if bias_correction_mu else m
        out.append(m_hat / (np.sqrt(v_hat + eps_root) + eps))
    return np.stack(out)


def nadam(
    gradients: np.ndarray,
    *,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    eps_root: float = 0.0,
    momentum_decay: float = 4e-3,
) -> np.ndarray:
    """Dozat (2016), algorithm 8 with the schedule of his experiments; the product is a loop."""

    def momentum(t: int) -> float:
        return b1 * (1 - 0.5 * 0.96 ** (t * momentum_decay))

    m, n = np.zeros(gradients.shape[1:]), np.zeros(gradients.shape[1:])
    product = 1.0
    out = []
    for t, g in enumerate(gradients.astype(np.float64), start=1):
        product *= momentum(t)
        m = b1 * m + (1 - b1) * g
        n = b2 * n + (1 - b2) * g**2
        m_hat = momentum(t + 1) * m / (1 - product * momentum(t + 1))
        g_hat = (1 - momentum(t)) * g / (1 - product)
        out.append((m_hat + g_hat) / (np.sqrt(n / (1 - b2**t) + eps_root) + eps))
    return np.stack(out)


def radam(
    gradients: np.ndarray,
    *,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    eps_root: float = 0.0,
    threshold: float = 5.0,
    nesterov: bool = False,
) -> np.ndarray:
    """Liu et al. (2019), algorithm 2, with a threshold."""
    m, v = np.zeros(gradients.shape[1:]), np.zeros(gradients.shape[1:])
    limit = 2 / (1 - b2) - 1
    out = []
    for t, g in enumerate(gradients.astype(np.float64), start=1):
        m = b1 * m + (1 - b1) * g
        v = b2 * v + (1 - b2) * g**2
        m_hat = m / (1 - b1**t)
        if nesterov:
            m_hat = b1 * m / (1 - b1 ** (t + 1)) + (1 - b1) * g / (1 - b1**t)
        length = limit - 2 * t * b2**t / (1 - b2**t)
        if length >= threshold:
            r = math.sqrt(
                (length - 4) * (length - 2) * limit / ((limit - 4) * (limit - 2) * length)
            )
            out.append(r * m_hat / (np.sqrt(v / (1 - b2**t) + eps_root) + eps))
        else:
            out.append(m_hat)
    return np.stack(out)


def adabelief(
    gradients: np.ndarray,
    *,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-16,
    eps_root: float = 1e-16,
    nesterov: bool = False,
) -> np.ndarray:
    """Zhuang et al. (2020), algorithm 2, with the second eps of the authors' code."""
    m, s = np.zeros(gradients.shape[1:]), np.zeros(gradients.shape[1:])
    out = []
    for t, g in enumerate(gradients.astype(np.float64), start=1):
        m = b1 * m + (1 - b1) * g
        s = b2 * s + (1 - b2) * (g - m) ** 2 + eps_root
        m_hat = m / (1 - b1**t)
        if nesterov:
            m_hat = b1 * m / (1 - b1 ** (t + 1)) + (1 - b1) * g / (1 - b1**t)
        out.append(m_hat / (np.sqrt(s / (1 - b2**t)) + eps))
    return np.stack(out)


def yogi(
    gradients: np.ndarray,
    *,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-3,
    eps_root: float = 0.0,
    initial_accumulator_value: float = 1e-6,
) -> np.ndarray:
    """Zaheer et al. (2018), algorithm 2, with the corrections of the authors' code."""
    m = np.zeros(gradients.shape[1:])
    v = np.full(gradients.shape[1:], initial_accumulator_value)
    out = []
    for t, g in enumerate(gradients.astype(np.float64), start=1):
        m = b1 * m + (1 - b1) * g
        v = v - (1 - b2) * np.sign(v - g**2) * g**2
        out.append(m / (1 - b1**t) / (np.sqrt(v / (1 - b2**t) + eps_root) + eps))
    return np.stack(out)
