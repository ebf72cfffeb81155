"""Print the flags by which XLA compiles thousands of small programs in a third of the time.

``make test`` and ``make slow`` compile most tests this way. Tests of the compiled program itself,
of bit-identical steps, and of checkpoints compile as users do (``AS_USERS`` in the Makefile), and
so does everything in the weekly job. The flags select an older code generator for fused operations,
skip its optimizations, and emit each program in one piece. Programs that run for milliseconds gain
nothing from the rest.
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
