"""Scores of predictions against annotations: overlap, matching, shapes, tracks and calibration."""
