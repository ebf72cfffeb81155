"""Print the flags by which XLA compiles thousands of small programs in half the time.

``python -m tests.quick`` is for ``make test``. What is about the compiled program itself, the
guard, checkpoints, the command line and the docstrings compile as users do there, and everything
does in ``make slow``. The flags choose an older way to make machine code out of what is fused.
"""

import os
import subprocess
import sys

QUICK = "--xla_cpu_use_fusion_emitters=false"


def main() -> None:
    given = os.environ.get("XLA_FLAGS", "")
    flags = f"{given} {QUICK}".strip()
    # A version that does not know a flag ends the process.
    known = subprocess.run(
        [sys.executable, "-c", "import jax; jax.devices()"],
        env={**os.environ, "XLA_FLAGS": flags},
        capture_output=True,
        check=False,
    )
    print(flags if known.returncode == 0 else given)


if __name__ == "__main__":
    main()
