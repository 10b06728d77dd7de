"""Write into the header of shipped weights the fingerprints of the cells that they were trained on.

    python docs/write_seen.py NAME FOLDER

NAME is `shape_rbc` or `shape_nuclei`; FOLDER holds image/, mask/ and obj/ of the cells that its model card names, all
of which it was trained on (`data.folds=0`). Only fingerprints are written, and the weights stay as they are.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from cytovox.models.metadata import read_checkpoint
from cytovox.models.weights_file import write_weights
from cytovox.networks.weights import shipped_weights
from datamodules.shape.config import ShapeFolderData
from datamodules.shape.datamodule import ShapeDataModule
from lightning_modules.seen import begun_from, trained_on


def main() -> None:
    """Write one file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=("shape_rbc", "shape_nuclei"))
    parser.add_argument("folder")
    args = parser.parse_args()
    weights = read_checkpoint(shipped_weights()[args.name], "shape", "NAME")
    data = ShapeDataModule(ShapeFolderData(root=args.folder, folds=0, val=0.0), seed=1)
    metadata = trained_on(begun_from(weights.metadata, None), data.fingerprints(("train", "val")))
    write_weights(weights.path, weights.network_state, dataclasses.asdict(metadata))
    print(f"written: {weights.path}, {len(metadata.seen)} cells")


if __name__ == "__main__":
    main()
