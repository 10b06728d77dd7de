"""Weights that come with Cytovox: a safetensors file and a model card (NAME.md) each."""

from pathlib import Path


def shipped_weights() -> dict[str, Path]:
    """Name -> file of all weights in this package; a name may stand wherever a config takes a checkpoint."""
    return {path.stem: path for path in sorted(Path(__file__).parent.glob("*.safetensors"))}
