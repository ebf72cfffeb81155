"""What ``import gradstable`` adds to ``import optax``: ``python -m benchmarks.import_time``."""

import json
import os
import statistics
import subprocess
import sys
import tempfile

_SCRIPT = """
import json, time
start = time.perf_counter()
import optax
middle = time.perf_counter()
import gradstable
print(json.dumps([middle - start, time.perf_counter() - middle]))
"""
_REPETITIONS = 9


def main() -> None:
    # With compiled files, as in an installed package.
    with tempfile.TemporaryDirectory() as folder:
        env = {**os.environ, "PYTHONPYCACHEPREFIX": folder, "PYTHONDONTWRITEBYTECODE": ""}
        runs = [measure(env) for _ in range(1 + _REPETITIONS)][1:]
    optax, ours = (statistics.median(column) for column in zip(*runs, strict=True))
    print(f"import optax: {1e3 * optax:.0f} ms; gradstable after it: {1e3 * ours:.0f} ms more,")
    print(f"{100 * ours / optax:.0f} % (median of {_REPETITIONS})")


def measure(env: dict[str, str]) -> list[float]:
    ran = subprocess.run([sys.executable, "-c", _SCRIPT], env=env, capture_output=True, check=True)
    return json.loads(ran.stdout)


if __name__ == "__main__":
    main()
