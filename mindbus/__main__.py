"""`python -m mindbus`."""

import sys

from mindbus.cli import main

if __name__ == "__main__":
    sys.exit(main())
