"""The organelle task: refractive-index tomograms to masks of organelles."""
