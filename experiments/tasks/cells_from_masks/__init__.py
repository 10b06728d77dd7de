"""Task cells_from_masks: one label per cell from existing masks of membrane and nucleus."""
