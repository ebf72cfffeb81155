"""The command line for the cases."""

import argparse
from pathlib import Path

from benchmarks import illnesses

FOLDER = Path(__file__).parents[2] / "tests" / "doctor" / "runs"


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.illnesses",
        description=illnesses.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    known = ", ".join(illnesses.CASES)
    parser.add_argument("names", nargs="*", metavar="name", help=f"all by default; of {known}")
    parser.add_argument("--out", type=Path, default=FOLDER, help="the folder to write into")
    parser.add_argument("--seed", type=int, default=0, help="the committed runs have 0")
    options = parser.parse_args()
    unknown = sorted(set(options.names) - set(illnesses.CASES))
    if unknown:
        parser.error(f"no such case: {', '.join(unknown)}")
    for name in options.names or illnesses.CASES:
        path = illnesses.write(name, options.out, seed=options.seed)
        print(f"{path} ({path.stat().st_size / 1024:.0f} KB)", flush=True)


if __name__ == "__main__":
    main()
