"""Numbers as plain text for titles, tables and labels."""

import math


def plain(value: float) -> str:
    """Return a number as text without markup: 0.05, 300, 2·10⁻⁵."""
    if value == 0 or 1e-3 <= abs(value) < 1e5 or not math.isfinite(value):
        return f"{value:,.6g}".replace("-", "−")
    mantissa, exponent = f"{value:.1e}".split("e")
    power = "10" + str(int(exponent)).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
    mantissa = mantissa.removesuffix(".0").replace("-", "−")
    return power if mantissa == "1" else f"{mantissa}·{power}"


def plain_short(value: float) -> str:
    """Return a number with three digits, as text without markup."""
    return plain(float(f"{value:.3g}"))


def counted(number: int, thing: str) -> str:
    """Return a number with its noun: 1 step, 2 steps."""
    return f"{number:,} {thing}" if number == 1 else f"{number:,} {thing}s"
