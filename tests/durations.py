"""Print where the time of the last ``make test`` went: seconds and tests of every folder.

``make test`` leaves ``.pytest_cache/tests-*.xml``, and ``make durations`` runs this on them. The
seconds of all workers are added up.
"""

import argparse
import collections
import xml.etree.ElementTree as ET
from collections.abc import Iterable
from pathlib import Path


def main() -> None:
    """Print the table, longest first."""
    parser = argparse.ArgumentParser(description="durations of the tests by folder")
    parser.add_argument("files", nargs="+", type=Path, help="what pytest --junitxml wrote")
    parser.add_argument("--depth", type=int, default=2, help="parts of the path that are shown")
    parser.add_argument("--most", type=int, default=30, help="rows that are shown")
    args = parser.parse_args()
    seconds, tests = tally(args.files, args.depth)
    for place, count in seconds.most_common(args.most):
        print(f"{count:8.1f} s {tests[place]:6d}  {place}")
    print(f"{seconds.total():8.1f} s {tests.total():6d}  in all")


def tally(
    files: Iterable[Path], depth: int
) -> tuple[collections.Counter[str], collections.Counter[str]]:
    """Return seconds and number of tests by the first parts of their path."""
    seconds: collections.Counter[str] = collections.Counter()
    tests: collections.Counter[str] = collections.Counter()
    for file in files:
        for case in ET.parse(file).iter("testcase"):
            place = "/".join(case.get("classname", "").split(".")[:depth])
            seconds[place] += float(case.get("time", 0))
            tests[place] += 1
    return seconds, tests


if __name__ == "__main__":
    main()
