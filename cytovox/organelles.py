"""The four organelles in the order of every channel axis and table, and their colours.

Masks may have other names (`data.organelles`): those follow the four, in grey.
"""

from collections.abc import Iterable

#: Order of the channel axis of masks and probabilities. "membrane" is the filled whole cell.
ORGANELLES: tuple[str, ...] = ("membrane", "nucleus", "nucleolus", "lipid")

#: Compartment of the whole cell in the tables; all other compartments are organelles.
WHOLE = "cell"

#: Name of the label image of cells, which has one value per cell; all others are masks.
CELLS = "cells"

#: Colour of each organelle in every figure, mesh and report: four hues of Okabe and Ito's set, distinguishable with any
#: common colour blindness and on grey.
COLOURS: dict[str, str] = {"membrane": "#56B4E9", "nucleus": "#E69F00", "nucleolus": "#CC79A7", "lipid": "#009E73"}

#: Colour of any other mask.
OTHER_COLOUR = "#999999"


def in_order(names: Iterable[str]) -> list[str]:
    """Return each name once: the four organelles in their order, then all others in the given order."""
    return sorted(dict.fromkeys(names), key=lambda name: (*ORGANELLES, name).index(name))
