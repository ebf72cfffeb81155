"""The screenshots of the report page: a real run with injected faults, in both themes.

Run ``python -m benchmarks.report_screenshot``; it takes a minute, needs Chromium, and writes
``docs/_static/demo.png`` for the README, and ``report_light.png``, ``report_dark.png``,
``report_phone.png``, and ``report_compare.png``. For the last four, a small network learns
handwritten digits with guarded AdamW, and some batches are bad: too bright at step 90, a NaN pixel
at 200, wrong labels with huge weights from 310 to 312. From 400 on everything is three times
brighter, which is not a bad batch but a level shift.
"""

import argparse
import functools
import os
import tempfile
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.typing import ArrayLike
from PIL import Image
from sklearn.datasets import load_digits

import gradstable as gs
from benchmarks.browser import browse
from gradstable.cli import main as gradstable_command
from gradstable.report import render

STEPS, BATCH = 600, 64
BRIGHT, BROKEN, MISLABELED, LEVEL = 90, 200, range(310, 313), 400
LEARNING_RATE, B2 = 2e-3, 0.999
WIDTHS = (64, 96, 64, 10)
WINDOW = (1100, 2000)
FOLDER = Path(__file__).parents[1] / "docs" / "_static"

_POINT = """<script>
setTimeout(() => {{
  const over = document.querySelector('[data-chart="{0}"] .u-over');
  const box = over.getBoundingClientRect();
  for (const kind of ["mouseenter", "mousemove"]) {{
    over.dispatchEvent(new MouseEvent(
      kind, {{ clientX: box.left + {1}, clientY: box.top + 60, movementX: 1, bubbles: true }}));
  }}
}}, 100);
</script>
</body>"""

Params = dict[str, dict[str, jax.Array]]


def first_params(key: jax.Array) -> Params:
    pairs = list(pairwise(WIDTHS))
    return {
        f"dense_{place}": {
            "kernel": jax.random.normal(one, pair) * (2 / pair[0]) ** 0.5,
            "bias": jnp.zeros(pair[1]),
        }
        for place, (pair, one) in enumerate(
            zip(pairs, jax.random.split(key, len(pairs)), strict=True)
        )
    }


def logits(params: Params, image: ArrayLike) -> jax.Array:
    x = jnp.asarray(image)
    for place, layer in enumerate(params.values()):
        x = (x if place == 0 else jax.nn.relu(x)) @ layer["kernel"] + layer["bias"]
    return x


def loss_fn(params: Params, image: ArrayLike, label: ArrayLike, weight: ArrayLike) -> jax.Array:
    target = optax.smooth_labels(jax.nn.one_hot(label, WIDTHS[-1]), 0.1)
    return jnp.mean(weight * optax.softmax_cross_entropy(logits(params, image), target))


def batch_at(step: int, images: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, ...]:
    rng = np.random.default_rng([0, step])
    rows = rng.integers(len(images), size=BATCH)
    image, label, weight = images[rows].copy(), labels[rows], np.ones(BATCH, np.float32)
    if step == BRIGHT:
        image *= 300
    if step == BROKEN:
        image[3, 17] = np.nan
    if step in MISLABELED:
        label, weight = (label + 1) % 10, weight * 1e3
    if step >= LEVEL:
        image *= 3
    return image, label, weight


def train(path: Path, *, steps: int = STEPS, guarded: bool = True) -> gs.telemetry.Run:
    """Train with everything recorded to a file; return the record."""
    digits: Any = load_digits()
    images, labels = (digits.data / 16).astype(np.float32), digits.target
    adamw = optax.adamw(LEARNING_RATE, b2=B2)
    tx = gs.record(gs.guard(adamw) if guarded else adamw)

    @functools.partial(jax.jit, donate_argnums=(0, 1))
    def train_step(params: Params, opt_state: Any, *batch: np.ndarray) -> tuple[Any, Any]:
        value, gradients = jax.value_and_grad(loss_fn)(params, *batch)
        updates, opt_state = tx.update(gradients, opt_state, params, value=value)
        return optax.apply_updates(params, updates), opt_state

    params = first_params(jax.random.key(0))
    opt_state = tx.init(params)
    config = {"learning_rate": LEARNING_RATE, "b2": B2, "batch size": BATCH, "widths": WIDTHS}
    name = "adamw in the guard" if guarded else "bare adamw"
    with gs.telemetry.Log(params, path, name=name, config=config) as log:
        for step in range(1, steps + 1):
            params, opt_state = train_step(params, opt_state, *batch_at(step, images, labels))
            log(opt_state)
            if step % 100 == 0:
                seen = images * 3 if step >= LEVEL else images
                right = np.argmax(logits(params, seen), axis=-1) == labels
                log.scalars(step, accuracy=right.mean())
                log.note(step, f"{step * BATCH:,} images seen")
    return gs.telemetry.read_run(path)


def shoot(
    page: Path,
    png: Path,
    *,
    dark: bool = False,
    window: tuple[int, int] = WINDOW,
    part: str = "",
    pointer: tuple[str, int] | None = None,
) -> None:
    """Write a screenshot of a page, with few colors, since all of it is flat.

    Args:
      page: the file.
      png: where to write the picture.
      dark: whether in the dark theme.
      window: the size in pixels.
      part: what follows the file in the address.
      pointer: the chart that the pointer is over, and how far from its left.
    """
    with tempfile.TemporaryDirectory() as scratch:
        copy = Path(scratch) / page.name
        text = page.read_text(encoding="utf-8")
        if pointer is not None:
            text = text.replace("</body>", _POINT.format(*pointer))
        copy.write_text(text, encoding="utf-8")
        browse(copy, f"--screenshot={png}", window=window, dark=dark, part=part)
    with Image.open(png) as image:
        flat = image.convert("RGB").crop((0, 0, *window))
    few = flat.quantize(method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    few.save(png, optimize=True)


def main(args: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=FOLDER, help="folder for the pictures")
    parser.add_argument("--keep", type=Path, help="folder for the runs and their pages too")
    options = parser.parse_args(args)
    options.out = options.out.absolute()
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.keep or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        # Named without their folder, so that the screenshot does not show the machine's paths.
        os.chdir(folder)
        runs = [train(Path(f"{name}.jsonl"), guarded=name == "guard") for name in ("guard", "bare")]
        page, compare = Path("report.html"), Path("compare.html")
        page.write_text(render(runs[:1]), encoding="utf-8")
        compare.write_text(render(runs), encoding="utf-8")
        assert gradstable_command(["demo", "--out", "demo"]) == 0
        shoot(Path("demo/demo.html"), options.out / "demo.png", window=(1000, 575))
        shoot(page, options.out / "report_light.png", pointer=("norm-0", 333))
        shoot(page, options.out / "report_dark.png", dark=True, part="#steps=280-420",
              pointer=("norm-0", 210))  # fmt: skip
        shoot(page, options.out / "report_phone.png", window=(400, 1700), pointer=("loss-0", 120))
        shoot(compare, options.out / "report_compare.png", window=(1100, 1500),
              pointer=("loss-0", 500))  # fmt: skip
        for png in sorted(options.out.glob("*.png")):
            print(f"{png} ({png.stat().st_size / 1024:.0f} KB)")


if __name__ == "__main__":
    main()
