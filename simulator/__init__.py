"""The virtual holotomograph: cells drawn, grown into arrays and observed through real optics."""

from simulator.presets import PRESETS, CellLine
from simulator.store import Request, load, simulate_many
from simulator.timelapse import RESPONSES, Response, time_lapse
from simulator.tomogram import Options, Tomogram, check_field, check_options, simulate

__all__ = [
    "PRESETS",
    "RESPONSES",
    "CellLine",
    "Options",
    "Request",
    "Response",
    "Tomogram",
    "check_field",
    "check_options",
    "load",
    "simulate",
    "simulate_many",
    "time_lapse",
]
