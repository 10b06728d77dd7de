"""Weights that come with Cytovox: a safetensors file and a model card (NAME.md) each."""

from pathlib import Path

#: Weights of each task that a prediction takes when it is given no others.
DEFAULTS = {"organelle": "organelle", "cells": "cells_fast", "shape": "shape_rbc"}


def shipped_weights() -> dict[str, Path]:
    """Name -> file of all weights in this package; a name may stand wherever a config takes a checkpoint."""
    return {path.stem: path for path in sorted(Path(__file__).parent.glob("*.safetensors"))}
