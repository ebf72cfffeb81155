"""The numbers of a block in NumPy float64, from the definition: small floats, times the largest."""

import numpy as np

TINY = 2.0**-126


def numbers(block: np.ndarray, mantissa: int, codes: int) -> np.ndarray:
    """Return zero and the numbers that the sizes of the entries may become, sorted.

    From 1 downwards there are ``2**mantissa`` numbers in each power of two, evenly spaced.
    """
    shares = [1.0]
    power = 0.5
    while len(shares) < codes:
        steps = np.arange(2**mantissa - 1, -1, -1)
        shares += list(power * (1.0 + steps / 2**mantissa))
        power /= 2.0
    largest = max(np.max(np.abs(block)), TINY)
    return np.array([0.0, *np.maximum(largest * np.array(shares[:codes][::-1]), TINY)])


def neighbors(
    x: np.ndarray, mantissa: int, codes: int, *, signed: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the numbers next to the size of each entry, and the chance of the upper."""
    has = numbers(x, mantissa, codes)
    size = np.abs(x)
    above = np.clip(np.searchsorted(has, size, side="right"), 1, len(has) - 1)
    low, high = has[above - 1], has[above]
    chance = (size - low) / (high - low)
    if not signed:  # what is not zero becomes no zero
        chance = np.where((low == 0) & (size > 0), 1.0, chance)
    return low, high, chance
