"""``python -m gradstable``: the same as the command ``gradstable``."""

import sys

from gradstable.cli import main

if __name__ == "__main__":
    sys.exit(main())
