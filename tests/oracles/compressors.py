"""The curves of heavyball's clipping, on one float, written from their formulas."""

import math


def tanh(x: float) -> float:
    return math.tanh(x)


def softsign(x: float) -> float:
    return 2.0 * x / (1.0 + abs(x))


def mu_law(x: float, mu: float = 127.0) -> float:
    return math.copysign(math.log1p(mu * abs(x)) / math.log1p(mu), x)


def trust_region(x: float, lerp: float = 0.9, scale: float = 1.5) -> float:
    y = x / scale
    mixed = math.copysign(math.log1p(abs(y)), y) * (1.0 - lerp) + math.tanh(y) * lerp
    return min(2.0, max(-2.0, mixed * scale))


CURVES = {"tanh": tanh, "softsign": softsign, "mu_law": mu_law, "trust_region": trust_region}


def soft_clip(x: float, kind: str, scale: float = 1.0) -> float:
    return scale * CURVES[kind](x / scale)
