"""`python -m experiments.run`, which knows MONAI's DiNTS, too."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # see benchmarks/__init__.py

from benchmarks._dints import DiNTSConfig
from experiments.run import main
from networks.registry import NETWORKS

NETWORKS["dints"] = DiNTSConfig

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
