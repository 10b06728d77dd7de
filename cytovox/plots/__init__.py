"""Figures and surfaces."""
