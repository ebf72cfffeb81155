"""Print the flags by which XLA compiles thousands of small programs in a third of the time.

``python -m tests.quick`` is for ``make test``. What is about the compiled program itself, the
guard, checkpoints, the command line and the docstrings compile as users do there, and everything
does in ``make slow``. The flags choose an older way to make machine code out of what is fused, do
not polish it, and make all of a program in one go: programs that run for milliseconds gain nothing
from the rest.
"""

import os
import subprocess
import sys

QUICK = (
    "--xla_cpu_use_fusion_emitters=false",
    "--xla_backend_optimization_level=0",
    "--xla_cpu_parallel_codegen_split_count=1",
)


def main() -> None:
    given = os.environ.get("XLA_FLAGS", "").split()
    chosen = [flag for flag in QUICK if _is_known(flag)]
    print(*given, *chosen)


def _is_known(flag: str) -> bool:
    """Whether XLA takes a flag: a version that does not know it ends the process."""
    done = subprocess.run(
        [sys.executable, "-c", "import jax; jax.devices()"],
        env={**os.environ, "XLA_FLAGS": flag},
        capture_output=True,
        check=False,
    )
    return done.returncode == 0


if __name__ == "__main__":
    main()
