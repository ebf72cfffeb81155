"""SPAM and Stable-SPAM in NumPy float64, from their authors' code; one leaf, dense."""

import math

import numpy as np


def spam(
    gradients: np.ndarray,
    *,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-6,
    threshold: float = 5000.0,
    delta_t: int = 500,
    warmup: int = 150,
    grad_accu: int = 20,
) -> np.ndarray:
    """Return the direction of every step, with the two counters of the code."""
    m, v = np.zeros(gradients.shape[1:]), np.zeros(gradients.shape[1:])
    out = []
    current_step = warmup + 1
    for total_step, gradient in enumerate(gradients.astype(np.float64)):
        g = gradient.copy()
        scale = 1.0
        if current_step < warmup:
            scale = 1 - 0.99 * (1 + math.cos(math.pi * current_step / (warmup + 1))) / 2
        step = total_step + 1
        if step % delta_t == 0:
            m, v = np.zeros_like(m), np.zeros_like(v)
        if step >= grad_accu and step % delta_t >= grad_accu:
            for i in np.ndindex(g.shape):
                if g[i] ** 2 > threshold * v[i]:
                    g[i] = np.sign(g[i]) * np.sqrt(v[i] * threshold)
        m = b1 * m + (1 - b1) * g
        v = b2 * v + (1 - b2) * g**2
        step_size = math.sqrt(1 - b2**step) / (1 - b1**step)
        out.append(scale * step_size * m / (np.sqrt(v) + eps))
        current_step += 1
        if (step + 1) % delta_t == 0:
            current_step = 0
    return np.stack(out)


def stable_spam(
    gradients: np.ndarray,
    *,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    gamma1: float = 0.7,
    gamma2: float = 0.9,
    theta: float = 0.999,
    gap: int = 1000,
    official: bool = False,
) -> tuple[np.ndarray, np.ndarray]:
    """Return direction and first clip of every step.

    ``official`` copies the counter of the authors' code, which a reset sets back for all.
    """
    m, v = np.zeros(gradients.shape[1:]), np.zeros(gradients.shape[1:])
    m_max = m_norm = v_norm = 0.0
    out, limits = [], []
    step = 0
    for total, gradient in enumerate(gradients.astype(np.float64), start=1):
        step += 1
        t = step if official else total
        g = gradient.copy()
        largest = np.max(np.abs(g))
        m_max = theta * m_max + (1 - theta) * largest
        limit = m_max / (1 - theta**t)
        limits.append(limit)
        for i in np.ndindex(g.shape):
            if abs(g[i]) > limit:
                g[i] = g[i] / largest * limit
        norm = math.sqrt(np.sum(g**2))
        m_norm = gamma1 * m_norm + (1 - gamma1) * norm
        v_norm = gamma2 * v_norm + (1 - gamma2) * norm**2
        n_hat, v_hat = m_norm / (1 - gamma1**t), v_norm / (1 - gamma2**t)
        if norm > 0:
            g = g / norm * n_hat / (math.sqrt(v_hat) + eps)
        if total % gap == 0:
            m, v = np.zeros_like(m), np.zeros_like(v)
            step = 1
        m = b1 * m + (1 - b1) * g
        v = b2 * v + (1 - b2) * g**2
        out.append(m / (1 - b1**step) / (np.sqrt(v / (1 - b2**step)) + eps))
    return np.stack(out), np.asarray(limits)
