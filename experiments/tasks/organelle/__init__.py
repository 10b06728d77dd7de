"""Organelle task: masks of organelles from refractive-index tomograms."""
