"""Measurements of cells, organelles and shapes, and their quality control."""
