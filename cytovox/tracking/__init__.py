"""Tracking of cells: tracks, divisions and lineages."""
