"""``python -m kerneldiff`` is the command ``kerneldiff``."""

import sys

from kerneldiff.cli import main

if __name__ == "__main__":
    sys.exit(main())
