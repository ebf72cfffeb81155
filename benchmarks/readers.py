"""The cost of reading a long run: time and memory of ``read_run``, the doctor, and the report.

Run ``python -m benchmarks.readers`` (about a minute). It writes a synthetic run of a million steps
into a temporary folder, with everything a long run has: leaf norms, clips, single and consecutive
rejections, NaN losses, alarms, rollbacks, lost steps, scalars from the loop. Each reader then runs
in its own process, and Chromium, if there is one, opens the page. ``--steps`` makes the run shorter
or longer, and ``--leaves`` wider.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.browser import browse, chromium
from gradstable.rules import Reason

STEPS, LEAVES, LEAF_EVERY, SCALARS = 1_000_000, 24, 4, 12
# Limits for a million steps, including reading and the start of Python.
SECONDS, MEGABYTES = 20.0, 600.0
_MEASURE = """\
import resource, sys, time
began = time.perf_counter()
{call}
seconds = time.perf_counter() - began
print(seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, file=sys.stderr)
"""
# The time since the browser began to open the page, once it has shown a frame with all charts.
_OPENED = """<script>
requestAnimationFrame(() => setTimeout(() => {
  const shown = document.createElement("output");
  shown.id = "opened";
  shown.textContent = performance.now();
  document.body.append(shown);
}));
</script>
</body>"""
_CALLS = {
    "read_run": "from gradstable.telemetry import read_run; read_run(sys.argv[1])",
    "doctor": 'from gradstable.cli import main; assert main(["doctor", sys.argv[1]]) == 0',
    "report": (
        "from gradstable.cli import main; "
        'assert main(["report", sys.argv[1], "-o", sys.argv[1] + ".html"]) == 0'
    ),
}


def write_run(path: Path, *, steps: int, leaves: int = LEAVES, seed: int = 0) -> None:
    """Write the run, line by line."""
    header = {
        "event": "run", "format": 1, "gradstable": "0", "jax": "0", "name": "long",
        "leaves": [f"['layer_{leaf // 2}']['{('kernel', 'bias')[leaf % 2]}']"
                   for leaf in range(leaves)],
        "sizes": [4096] * leaves, "dtypes": ["float32"] * leaves, "config": {"b2": 0.999},
    }  # fmt: skip
    with path.open("w", encoding="utf-8") as file:
        file.write(json.dumps(header) + "\n")
        for event in events(steps, leaves, seed=seed):
            file.write(json.dumps(event) + "\n")


def events(steps: int, leaves: int, *, seed: int = 0) -> Iterator[dict[str, Any]]:
    """Yield everything that happens in the run."""
    rng = np.random.default_rng(seed)
    fate = rng.random(steps)
    # A rejection in 100 steps, some of them consecutive; a clip in 20; a broken loss in 5,000.
    rejected = (fate < 0.008) | (np.roll(fate, 1) < 0.002)
    clipped = ~rejected & (fate > 0.95)
    broken, alarmed = rng.random(steps) < 2e-4, rng.random(steps) < 2e-3
    for row in range(steps):
        if row % 10_007 == 5_000:
            yield {"event": "lost", "first": row + 1, "last": row + 1}
            continue
        noise = np.exp(0.2 * rng.standard_normal(5 + (leaves if row % LEAF_EVERY == 0 else 0)))
        huge = 30.0 if rejected[row] else 3.5 if clipped[row] else 1.0
        yield _step(row, noise, huge, done=row / steps, broken=bool(broken[row]),
                    scale=0.0 if rejected[row] else 0.4 if clipped[row] else 1.0,
                    alarm=int(alarmed[row]), leaves=leaves)  # fmt: skip
        if row % 1_000 == 999:
            numbers = {f"number_{place}": round(row / steps, 4) for place in range(SCALARS)}
            yield {"event": "scalars", "step": row + 1, **numbers}
        if row % 20_000 == 19_999:
            yield {"event": "note", "step": row + 1, "text": f"rollback to step {row - 200}"}
    yield {"event": "end", "step": steps}


def _step(
    row: int,
    noise: np.ndarray,
    huge: float,
    *,
    done: float,
    broken: bool,
    scale: float,
    alarm: int,
    leaves: int,
) -> dict[str, Any]:
    # As many digits as float32 has, as in a real log.
    loss, norm, threshold, ratio, rms, *norms = (float(f"{one:.8g}") for one in noise)
    reason = {0.0: Reason.SPIKE_REJECTED, 0.4: Reason.SPIKE_CLIPPED}.get(scale, Reason.OK)
    event = {
        "event": "step", "step": row + 1,
        "loss": "nan" if broken else float(f"{2.5 * loss * np.exp(-2 * done):.8g}"),
        "grad_norm": "nan" if broken else huge * norm,
        "threshold": "inf" if row < 10 else 3.0 * threshold, "scale": 0.0 if broken else scale,
        "update_ratio": 0.001 * ratio, "rms": rms * (40.0 if alarm else 1.0), "lr_factor": 1.0,
        "reason": int(Reason.NONFINITE if broken else reason), "worst_leaf": row % leaves,
        "rms_leaf": row % 7, "alarms": alarm,
    }  # fmt: skip
    return event | ({"leaf_norms": norms} if norms else {})


def measure(reader: str, path: Path) -> tuple[float, float]:
    """Return the seconds and megabytes that a reader takes in its own process."""
    script = _MEASURE.format(call=_CALLS[reader])
    done = subprocess.run(
        [sys.executable, "-c", script, str(path)], capture_output=True, text=True, check=True
    )
    seconds, megabytes = done.stderr.split()[-2:]
    return float(seconds), float(megabytes)


def opened(page: Path) -> float:
    """Return after how many milliseconds a browser has drawn the whole page."""
    text = page.read_text(encoding="utf-8").replace("</body>", _OPENED)
    timed = page.with_name("timed.html")
    timed.write_text(text, encoding="utf-8")
    dom, _ = browse(timed, "--dump-dom", real_time=True)
    return float(dom.rpartition('<output id="opened">')[2].partition("<")[0] or "nan")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--leaves", type=int, default=LEAVES)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "run.jsonl"
        write_run(path, steps=options.steps, leaves=options.leaves)
        size = path.stat().st_size / 2**20
        table = Table(title=f"{options.steps:,} steps, {options.leaves} leaves, {size:,.0f} MB")
        for name in ("reader", "seconds", "peak MB"):
            table.add_column(name, justify="left" if name == "reader" else "right")
        for reader in _CALLS:
            seconds, megabytes = measure(reader, path)
            table.add_row(reader, f"{seconds:.1f}", f"{megabytes:.0f}")
        table.caption = f"for a million steps: at most {SECONDS:.0f} s and {MEGABYTES:.0f} MB"
        Console().print(table)
        page = Path(f"{path}.html")
        print(f"The page has {page.stat().st_size / 1000:,.0f} KB.")
        if chromium() is not None:
            times = sorted(opened(page) for _ in range(5))
            print(f"Chromium has drawn it after {times[2]:,.0f} ms (median of 5).")


if __name__ == "__main__":
    main()
