"""The flags of a cell in a frame: possible errors of its measurement, and the quantities that each error affects."""

from __future__ import annotations

from dataclasses import dataclass

from cytovox.organelles import WHOLE

#: Factor between the volume (or dry mass) of a cell and that in its last good frame that is a jump. A cell that divides
#: every 20 h grows by a factor of 1.1 in 3 h.
MAX_JUMP = 1.3
#: Least difference of refractive index between a cell and its surroundings for a reliable outline: the error that a
#: wrong index of the medium causes.
MIN_CONTRAST_RI = 0.003
#: Largest width of the interval of a volume, relative to the volume.
MAX_INTERVAL = 0.5
#: Least share of the joined volume for a piece to count in merges and splits.
MIN_PIECE = 0.1

#: Quantities that a wrong outline makes wrong, and means over the voxels inside the outline.
SIZES = (
    "volume_um3", "volume_low_um3", "volume_high_um3", "surface_area_um2", "sphericity", "dry_mass_pg", "parts",
    "mean_part_um3", "median_part_um3", "largest_part_um3", "mean_part_area_um2", "nuclei",
)  # fmt: skip
MEANS = ("mean_ri", "sd_ri", "concentration_g_per_ml", "concentration_choi_g_per_ml")
#: Compartments (empty: all of them), and columns.
_Scope = tuple[tuple[str, ...], tuple[str, ...]]


@dataclass(frozen=True)
class Flag:
    """One kind of possible error."""

    name: str
    """Name in the column `flags`."""
    meaning: str
    """Sentence for the report."""
    invalid: tuple[_Scope, ...] = ()
    """Quantities that are excluded; none for a flag that only informs."""

    def columns(self, compartment: str) -> frozenset[str]:
        """Return the columns of a compartment's row that are excluded."""
        return frozenset(
            column for names, columns in self.invalid if not names or compartment in names for column in columns
        )


#: All flags by name, in the order of the report.
FLAGS: dict[str, Flag] = {
    flag.name: flag
    for flag in (
        Flag("merge", "the mask holds two cells or more that are apart in other frames", (((), SIZES + MEANS),)),
        Flag("split", "the mask is a piece of a cell that is whole in other frames", (((), SIZES),)),
        Flag(
            "possible_division", "the cell may have divided: track.divisions=true sums the daughters", (((), SIZES),)
        ),
        Flag("volume_jump", "the volume jumps against the cell's other frames", (((), SIZES), ((WHOLE,), MEANS))),
        Flag(
            "mass_jump", "the dry mass jumps against the cell's other frames",
            (((WHOLE,), ("dry_mass_pg", *MEANS)),),
        ),
        Flag("border", "the cell reaches the border of the field and is cut there", (((), SIZES),)),
        Flag(
            "rim", "the cell is cut and its nucleus is outside the field: only its rim is visible",
            (((), SIZES + MEANS),),
        ),
        Flag("several_nuclei", "the cell has several nuclei", ((("nucleus",), SIZES), ((WHOLE,), ("nuclei",)))),
        Flag(
            "no_nucleus", "the cell has no nucleus",
            ((("nucleus", "nucleolus"), SIZES + MEANS), ((WHOLE,), ("nuclei",))),
        ),
        Flag("low_contrast", "the cell differs little from its surroundings", (((), SIZES),)),
        Flag("wide_interval", "the networks do not agree on the volume", (((WHOLE,), SIZES),)),
        Flag(
            "no_evidence", "the picture shows neither contrast nor edges where the mask of a compartment ends",
            (((), SIZES + MEANS),),
        ),
        Flag("incomplete", "a daughter was not detected: the sum over the lineage is too small", (((), SIZES),)),
        Flag("weights_range", "the tomogram is outside the range that the weights were trained on"),
    )
}  # fmt: skip


#: Flags of cut cells, which the config key `border` controls.
OF_CUT_CELLS = ("border", "rim")


@dataclass(frozen=True)
class QualityRules:
    """Thresholds of the flags; None turns a flag off."""

    exclude: bool = True
    """Whether flagged quantities are excluded from curves and tests."""
    border: bool = True
    """Whether quantities that are invalid for cut cells (`OF_CUT_CELLS`) are excluded."""
    volume_jump: float | None = MAX_JUMP
    mass_jump: float | None = MAX_JUMP
    min_contrast_ri: float | None = MIN_CONTRAST_RI
    max_interval: float | None = MAX_INTERVAL
    merges: bool = True
    """Whether merges and splits are searched."""
    evidence: bool = False
    """Whether predicted masks are flagged where the picture shows nothing."""


def evidence_flags(evidence: str | None, expected_dice: float | None, rules: QualityRules) -> tuple[str, ...]:
    """Return the flag of a compartment with a predicted mask where the picture shows nothing.

    Parameters
    ----------
    evidence : str, optional
        Entry of the column `evidence`.
    expected_dice : float, optional
        Entry of that column; None or nan for existing and corrected masks, which are not flagged.
    rules : QualityRules
    """
    predicted = expected_dice is not None and expected_dice == expected_dice
    return ("no_evidence",) if rules.evidence and predicted and evidence == "none" else ()


def flags_of(text: str) -> tuple[str, ...]:
    """Return the flags in an entry of the column `flags`."""
    return tuple(text.split())


def as_text(flags: frozenset[str] | set[str] | tuple[str, ...]) -> str:
    """Return an entry of the column `flags`: known flags in the order of `FLAGS`, then others, separated by blanks."""
    known = [name for name in FLAGS if name in flags]
    return " ".join([*known, *sorted(set(flags) - set(known))])


def excluded_columns(flags: tuple[str, ...], compartment: str, rules: QualityRules) -> tuple[str, ...]:
    """Return the columns of a row that are excluded from curves and tests, in the order of `SIZES` and `MEANS`."""
    counted = [name for name in flags if name in FLAGS and (rules.border if name in OF_CUT_CELLS else rules.exclude)]
    invalid = {column for name in counted for column in FLAGS[name].columns(compartment)}
    return tuple(column for column in SIZES + MEANS if column in invalid)
