"""Every optimizer through every storm: ``python -m benchmarks.gauntlet``.

The same as ``gradstable gauntlet``; see ``--help``, and the page Gauntlet of the documentation.
"""

import sys

from gradstable.gauntlet.command import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], prog="python -m benchmarks.gauntlet"))
