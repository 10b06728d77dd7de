"""Cells linked from frame to frame, and lineages."""
