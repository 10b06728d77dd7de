"""Segment cells from masks of organelles: seeds, watershed, centre offsets, and the nucleus-conditioned network."""
