"""The cells_from_masks task: existing masks of membrane and nucleus to one label per cell."""
