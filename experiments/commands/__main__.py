"""`python -m experiments.commands`: equivalent to the console script `cytovox`."""

import sys

from experiments.commands import main

if __name__ == "__main__":
    sys.exit(main())
