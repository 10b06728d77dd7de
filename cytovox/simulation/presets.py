"""Parameters of the five simulated cell lines: size, shape, density and contents of their cells.

A pair of numbers is a range from which each cell (or each field) draws its value. Lengths are in µm; an index is the
refractive index itself. The differences between the lines follow Choi et al. 2021 (bioRxiv 2021.05.23.445351).
"""

from dataclasses import dataclass

Range = tuple[float, float]


@dataclass(frozen=True)
class CellLine:
    """Parameters of one cell line."""

    name: str
    """Name in tables and file names."""
    cells_per_1000_um2: Range
    """Number of cells per 1000 µm² of coverslip."""
    length_um: Range
    """Long axis of the body in the yx plane."""
    aspect: Range
    """Long axis over short axis."""
    height_um: Range
    """Height of a spread cell above the coverslip."""
    dome_power: Range
    """Exponent of the height (1 - rho^2)^power from the centre to the edge: small is a slab, large is a narrow dome."""
    round_share: float
    """Share of cells that are round (suspended, or in mitosis) instead of spread."""
    ball_um: Range
    """Diameter of a round cell."""
    arms: tuple[int, int]
    """Number of thin protrusions, minimum and maximum."""
    arm_reach: Range
    """Length of a protrusion in body radii."""
    lamella_um: Range
    """Width of the thin lamellipodium around the body."""
    nucleus_length: Range
    """Long axis of the nucleus over that of the body."""
    nucleus_aspect: Range
    """Long axis of the nucleus over its short one, in the yx plane."""
    nucleus_height: Range
    """Height of the nucleus over that of the cell."""
    nucleoli: tuple[int, int]
    """Number of nucleoli in a nucleus, minimum and maximum."""
    nucleolus_radius_um: Range
    """Radius of a nucleolus."""
    droplets: tuple[int, int]
    """Number of lipid droplets in a cell, minimum and maximum."""
    droplet_radius_um: Range
    """Radius of a lipid droplet."""
    granules: tuple[int, int]
    """Number of clusters of dense granules in a cell, which have the index of lipid but are not lipid."""
    overlap_um: float
    """Thickness of a neighbour below which a cell lies on top of it; thicker neighbours meet it at a vertical wall."""
    overlapping: bool
    """Whether the lamellae of two cells may lie on top of each other."""
    crowding: Range
    """Probability that a cell is placed next to another one instead of anywhere; one draw per field."""
    cytoplasm_ri: Range = (1.345, 1.367)
    """Mean index of a cell's cytoplasm."""
    nucleus_contrast: Range = (-0.0045, 0.0015)
    """Index of the nucleoplasm minus that of the cytoplasm."""
    nucleolus_contrast: Range = (0.0110, 0.0180)
    """Index of a nucleolus minus that of the nucleoplasm."""
    droplet_ri: Range = (1.390, 1.420)
    """Index of a lipid droplet."""
    granule_ri: Range = (1.390, 1.420)
    """Index of a dense granule."""
    lamella_share: Range = (0.10, 0.26)
    """Contrast of the thinnest lamella relative to the cytoplasm's."""
    debris_per_1000_um2: Range = (3.0, 20.0)
    """Number of specks of debris per 1000 µm², outside the cells."""


#: All presets by name.
PRESETS: dict[str, CellLine] = {
    line.name: line
    for line in (
        CellLine(
            name="NIH3T3",
            cells_per_1000_um2=(2.2, 3.6),
            length_um=(22.0, 30.0),
            aspect=(2.2, 3.4),
            height_um=(5.5, 8.0),
            dome_power=(0.55, 0.9),
            round_share=0.05,
            ball_um=(11.0, 14.0),
            arms=(1, 3),
            arm_reach=(0.3, 0.8),
            lamella_um=(2.5, 5.5),
            nucleus_length=(0.40, 0.52),
            nucleus_aspect=(1.3, 1.7),
            nucleus_height=(0.62, 0.75),
            nucleoli=(2, 4),
            nucleolus_radius_um=(0.95, 1.4),
            droplets=(4, 10),
            droplet_radius_um=(0.65, 1.0),
            granules=(3, 6),
            overlap_um=3.0,
            overlapping=True,
            crowding=(0.5, 1.0),
        ),
        CellLine(
            name="A549",
            cells_per_1000_um2=(1.8, 2.8),
            length_um=(20.0, 27.0),
            aspect=(1.1, 1.6),
            height_um=(5.0, 6.2),
            dome_power=(0.35, 0.6),
            round_share=0.04,
            ball_um=(12.0, 15.0),
            arms=(0, 2),
            arm_reach=(0.1, 0.3),
            lamella_um=(2.5, 6.5),
            nucleus_length=(0.42, 0.54),
            nucleus_aspect=(1.1, 1.4),
            nucleus_height=(0.62, 0.75),
            nucleoli=(2, 4),
            nucleolus_radius_um=(1.1, 1.6),
            droplets=(5, 14),
            droplet_radius_um=(0.85, 1.35),
            granules=(4, 8),
            overlap_um=1.5,
            overlapping=False,
            crowding=(0.3, 0.95),
        ),
        CellLine(
            name="HeLa",
            cells_per_1000_um2=(2.2, 3.4),
            length_um=(18.0, 23.0),
            aspect=(1.1, 1.5),
            height_um=(8.5, 11.5),
            dome_power=(0.5, 0.8),
            round_share=0.10,
            ball_um=(13.0, 16.0),
            arms=(0, 3),
            arm_reach=(0.1, 0.4),
            lamella_um=(3.0, 7.0),
            nucleus_length=(0.54, 0.64),
            nucleus_aspect=(1.1, 1.4),
            nucleus_height=(0.62, 0.75),
            nucleoli=(2, 4),
            nucleolus_radius_um=(1.0, 1.6),
            droplets=(3, 9),
            droplet_radius_um=(0.65, 1.05),
            granules=(3, 6),
            overlap_um=1.5,
            overlapping=False,
            crowding=(0.3, 0.95),
        ),
        CellLine(
            name="MDA-MB-231",
            cells_per_1000_um2=(2.0, 3.2),
            length_um=(18.0, 26.0),
            aspect=(1.4, 2.3),
            height_um=(6.5, 9.0),
            dome_power=(0.5, 0.8),
            round_share=0.08,
            ball_um=(12.0, 15.0),
            arms=(1, 2),
            arm_reach=(0.2, 0.5),
            lamella_um=(3.0, 7.0),
            nucleus_length=(0.44, 0.56),
            nucleus_aspect=(1.1, 1.5),
            nucleus_height=(0.62, 0.75),
            nucleoli=(1, 2),
            nucleolus_radius_um=(1.6, 2.3),
            droplets=(4, 10),
            droplet_radius_um=(0.65, 1.1),
            granules=(3, 6),
            overlap_um=1.8,
            overlapping=False,
            crowding=(0.2, 0.9),
        ),
        CellLine(
            name="RAW264.7",
            cells_per_1000_um2=(3.6, 5.6),
            length_um=(11.0, 14.5),
            aspect=(1.0, 1.25),
            height_um=(8.0, 10.5),
            dome_power=(0.42, 0.55),
            round_share=0.3,
            ball_um=(11.0, 14.0),
            arms=(0, 1),
            arm_reach=(0.1, 0.3),
            lamella_um=(3.0, 6.5),
            nucleus_length=(0.64, 0.74),
            nucleus_aspect=(1.0, 1.2),
            nucleus_height=(0.64, 0.74),
            nucleoli=(1, 3),
            nucleolus_radius_um=(0.95, 1.5),
            droplets=(3, 8),
            droplet_radius_um=(0.65, 0.95),
            granules=(1, 3),
            overlap_um=1.2,
            overlapping=False,
            crowding=(0.3, 0.95),
        ),
    )
}
