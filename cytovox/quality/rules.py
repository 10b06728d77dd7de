"""What can be wrong with the measurement of a cell in a frame, and which of its quantities that makes doubtful."""

from __future__ import annotations

from dataclasses import dataclass

from cytovox.organelles import WHOLE

#: Factor between a cell's volume (or dry mass) and that of its last good frame from which it is a jump. Cells that
#: divide every 20 h grow by 1.1 in 3 h.
MAX_JUMP = 1.3
#: Difference of refractive index between a cell and its surroundings below which its outline is doubtful: as much as a
#: wrong medium makes.
MIN_CONTRAST_RI = 0.003
#: Width of the interval on a volume, over the volume.
MAX_INTERVAL = 0.5
#: A cell that is joined to another, or a piece that falls off, counts from this share of the joined volume on.
MIN_PIECE = 0.1

#: Quantities that a wrong outline makes wrong, and those that are means over the voxels inside it.
SIZES = (
    "volume_um3", "volume_low_um3", "volume_high_um3", "surface_area_um2", "sphericity", "dry_mass_pg", "parts",
    "mean_part_um3", "median_part_um3", "largest_part_um3", "mean_part_area_um2", "nuclei",
)  # fmt: skip
MEANS = ("mean_ri", "sd_ri", "concentration_g_per_ml", "concentration_choi_g_per_ml")
#: Compartments, all of them where it is empty, and their columns.
_Scope = tuple[tuple[str, ...], tuple[str, ...]]


@dataclass(frozen=True)
class Flag:
    """One kind of doubt."""

    name: str
    """As it stands in the column `flags`."""
    meaning: str
    """A sentence for the report."""
    invalid: tuple[_Scope, ...] = ()
    """Quantities that do not count; none where the flag only informs."""

    def columns(self, compartment: str) -> frozenset[str]:
        """Columns of a compartment's row that do not count."""
        return frozenset(
            column for names, columns in self.invalid if not names or compartment in names for column in columns
        )


#: In the order in which they are listed.
FLAGS: dict[str, Flag] = {
    flag.name: flag
    for flag in (
        Flag("merge", "the mask holds two cells or more that are apart in other frames", (((), SIZES + MEANS),)),
        Flag("split", "the mask is a piece of a cell that is whole in other frames", (((), SIZES),)),
        Flag(
            "possible_division", "the cell may have divided: track.divisions=true sums the daughters", (((), SIZES),)
        ),
        Flag("volume_jump", "the volume jumps against the cell's own other frames", (((), SIZES), ((WHOLE,), MEANS))),
        Flag(
            "mass_jump", "the dry mass jumps against the cell's own other frames",
            (((WHOLE,), ("dry_mass_pg", *MEANS)),),
        ),
        Flag("border", "the cell reaches the border of the field: it is cut there", (((), SIZES),)),
        Flag(
            "rim", "the cell is cut, its nucleus is not in the field: only its rim is seen", (((), SIZES + MEANS),)
        ),
        Flag("several_nuclei", "the cell has several nuclei", ((("nucleus",), SIZES), ((WHOLE,), ("nuclei",)))),
        Flag(
            "no_nucleus", "the cell has no nucleus",
            ((("nucleus", "nucleolus"), SIZES + MEANS), ((WHOLE,), ("nuclei",))),
        ),
        Flag("low_contrast", "the cell differs little from its surroundings", (((), SIZES),)),
        Flag("wide_interval", "the networks do not agree on the volume", (((WHOLE,), SIZES),)),
        Flag("incomplete", "a daughter was not seen: the sum over the lineage is too small", (((), SIZES),)),
        Flag("weights_range", "the tomogram is outside the range that the weights were trained on"),
    )
}  # fmt: skip


#: Flags that the key `border` of an analysis decides on.
OF_CUT_CELLS = ("border", "rim")


@dataclass(frozen=True)
class QualityRules:
    """From which values on something is flagged; None turns a flag off."""

    exclude: bool = True
    """Whether what is flagged is left out of curves and tests."""
    border: bool = True
    """Whether what a cut cell invalidates (`OF_CUT_CELLS`) is left out."""
    volume_jump: float | None = MAX_JUMP
    mass_jump: float | None = MAX_JUMP
    min_contrast_ri: float | None = MIN_CONTRAST_RI
    max_interval: float | None = MAX_INTERVAL
    merges: bool = True
    """Whether merges and splits are looked for."""


def flags_of(text: str) -> tuple[str, ...]:
    """The flags in a cell of the column `flags`."""
    return tuple(text.split())


def as_text(flags: frozenset[str] | set[str] | tuple[str, ...]) -> str:
    """Flags for the column `flags`: known ones in the order of `FLAGS`, then others, with blanks between."""
    known = [name for name in FLAGS if name in flags]
    return " ".join([*known, *sorted(set(flags) - set(known))])


def excluded_columns(flags: tuple[str, ...], compartment: str, rules: QualityRules) -> tuple[str, ...]:
    """Columns of a row that do not count in curves and tests, in the order of `SIZES` and `MEANS`."""
    if not rules.exclude:
        flags = tuple(name for name in flags if name in OF_CUT_CELLS)
    invalid: set[str] = set()
    for name in flags:
        if name in FLAGS and (name not in OF_CUT_CELLS or rules.border):
            invalid |= FLAGS[name].columns(compartment)
    return tuple(column for column in SIZES + MEANS if column in invalid)
