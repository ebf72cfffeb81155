"""The colors of a page, in a light and a dark theme."""

# Name: color in the light theme, color in the dark theme. Colors that carry meaning are from the
# color-blind-safe set of Okabe and Ito, darkened on white until thin lines have a contrast of at
# least 3 to 1.
PALETTE = {
    "paper": ("#f4f5f7", "#0e1116"),
    "card": ("#ffffff", "#171b21"),
    "ink": ("#1f2430", "#e7eaee"),
    "soft": ("#5b6472", "#9ba6b4"),
    "line": ("#d7dbe0", "#333b46"),
    "grid": ("#eceef1", "#252b34"),
    "main": ("#0072b2", "#56b4e9"),
    "bad": ("#d55e00", "#ff8a3d"),
    "warn": ("#a87000", "#f0c14b"),
    "note": ("#a3487f", "#e79fce"),
    "good": ("#00795c", "#35c79a"),
}
# Colors of the curves in a comparison; each also has its own dash.
CURVES = ("main", "bad", "good", "note", "warn", "ink")


def style_sheet() -> str:
    """Return the part of the style sheet that assigns colors to the names."""
    light, dark = (
        " ".join(f"--{name}: {pair[theme]};" for name, pair in PALETTE.items()) for theme in (0, 1)
    )
    return (
        f":root {{ {light} color-scheme: light; }}\n"
        f"@media (prefers-color-scheme: dark) {{ :root:not([data-theme=light]) "
        f"{{ {dark} color-scheme: dark; }} }}\n"
        f":root[data-theme=dark] {{ {dark} color-scheme: dark; }}"
    )
