"""A simulated holotomograph: random cells, sampled on a grid and imaged through a model of the optics."""

from cytovox.simulation.presets import PRESETS, CellLine
from cytovox.simulation.store import Request, load, simulate_many
from cytovox.simulation.timelapse import RESPONSES, Response, time_lapse
from cytovox.simulation.tomogram import Options, Tomogram, check_field, check_options, simulate

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
