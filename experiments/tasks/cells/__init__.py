"""Cells task: one label per cell from masks of organelles."""
