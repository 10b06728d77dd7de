"""The cells task: masks of organelles to one label per cell."""
