"""The four organelles, in the order of every channel axis and every table, and the colour each is drawn in.

A user's masks may have other names (`data.organelles`): those follow the four, in grey.
"""

from collections.abc import Iterable

#: Order of the channel axis of masks and probabilities. "membrane" is the filled whole cell.
ORGANELLES: tuple[str, ...] = ("membrane", "nucleus", "nucleolus", "lipid")

#: Compartment of the whole cell in the tables; all other compartments are organelles.
WHOLE = "cell"

#: Beside the organelles: a label image, one value a cell, where all others are masks.
CELLS = "cells"

#: One colour an organelle in every figure, mesh and report: four hues of Okabe and Ito's set, distinguished with any
#: common colour blindness and on grey.
COLOURS: dict[str, str] = {"membrane": "#56B4E9", "nucleus": "#E69F00", "nucleolus": "#CC79A7", "lipid": "#009E73"}

#: For a mask that is none of the four.
OTHER_COLOUR = "#999999"


def in_order(names: Iterable[str]) -> list[str]:
    """Each name once: those of the four in their order, then all others in the order given."""
    found = list(dict.fromkeys(names))
    return [name for name in ORGANELLES if name in found] + [name for name in found if name not in ORGANELLES]
