"""The virtual holotomograph: cells drawn, grown into arrays and observed through real optics."""

from simulator.presets import PRESETS, CellLine
from simulator.store import Request, load, simulate_many
from simulator.tomogram import Options, Tomogram, simulate

__all__ = ["PRESETS", "CellLine", "Options", "Request", "Tomogram", "load", "simulate", "simulate_many"]
