"""`python -m experiments.commands`: the same as the console script `cytovox`."""

import sys

from experiments.commands import main

if __name__ == "__main__":
    sys.exit(main())
