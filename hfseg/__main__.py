"""`python -m hfseg` is the command `hfseg`."""

import sys

from hfseg.command import main

if __name__ == "__main__":
    sys.exit(main())
