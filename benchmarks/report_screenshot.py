"""The screenshots of the report page: a real run with injected faults, in both themes.

Run ``python -m benchmarks.report_screenshot``; it takes half a minute, needs Chromium, and writes
``docs/_static/demo.png`` for the README, ``report_light.png``, ``report_dark.png``, and
``report_compare.png``. For the last three, a small network learns handwritten digits with guarded
AdamW, and some batches are bad: too bright at step 90, a NaN pixel at 200, wrong labels with huge
weights from 310 to 312. From 400 on everything is three times brighter, which is not a bad batch
but a level shift.
"""

import argparse
import functools
import os
import shutil
import subprocess
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
from gradstable.cli import main as gradstable_command
from gradstable.report import render

STEPS, BATCH = 600, 64
BRIGHT, BROKEN, MISLABELED, LEVEL = 90, 200, range(310, 313), 400
LEARNING_RATE, B2 = 2e-3, 0.999
WIDTHS = (64, 96, 64, 10)
WINDOW = (1100, 2000)
FOLDER = Path(__file__).parents[1] / "docs" / "_static"

# No screen, no network, no telemetry, and a virtual clock.
_FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--disable-sync",
    "--disable-background-networking",
    "--disable-component-update",
    "--no-first-run",
    "--hide-scrollbars",
    "--host-resolver-rules=MAP * ~NOTFOUND",
    "--enable-logging=stderr",
    "--virtual-time-budget=5000",
)

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


def chromium() -> str | None:
    """Return the path of the browser, if there is one."""
    return shutil.which("chromium") or shutil.which("chromium-browser")


def browse(
    page: Path,
    *options: str,
    window: tuple[int, int] = WINDOW,
    dark: bool = False,
    seconds: float = 60.0,
    part: str = "",
) -> tuple[str, str]:
    """Open a page without a network or a screen; return what it wrote and logged.

    Args:
      page: the file.
      *options: more options of the browser.
      window: its size in pixels, however narrow.
      dark: whether the system has a dark theme.
      seconds: how long to wait.
      part: what follows the file in the address, with its ``#``.
    """
    command = chromium()
    if command is None:
        raise FileNotFoundError("chromium is not on the PATH")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        done = subprocess.run(
            [
                command, *_FLAGS, f"--user-data-dir={profile}",
                f"--blink-settings=preferredColorScheme={0 if dark else 1}", *options,
                f"--window-size={window[0]},{window[1]}", page.resolve().as_uri() + part,
            ],
            capture_output=True, text=True, timeout=seconds, check=True,
            env={**os.environ, "HOME": profile},
        )  # fmt: skip
    return done.stdout, done.stderr


def shoot(page: Path, png: Path, *, dark: bool, window: tuple[int, int] = WINDOW) -> None:
    """Write a screenshot of a page, with few colors, since all of it is flat."""
    browse(page, f"--screenshot={png}", window=window, dark=dark)
    with Image.open(png) as image:
        few = image.convert("RGB").quantize(method=Image.Quantize.MAXCOVERAGE)
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
        pictures = {
            "demo.png": (Path("demo/demo.html"), False, (1000, 575)),
            "report_light.png": (page, False, WINDOW),
            "report_dark.png": (page, True, WINDOW),
            "report_compare.png": (compare, False, (1100, 1500)),
        }
        for name, (source, dark, window) in pictures.items():
            png = options.out / name
            shoot(source, png, dark=dark, window=window)
            print(f"wrote {png} ({png.stat().st_size / 1024:.0f} KB)")


if __name__ == "__main__":
    main()
