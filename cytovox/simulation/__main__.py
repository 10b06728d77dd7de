"""Write simulated tomograms as files that any viewer opens.

``python -m cytovox.simulation --preset HeLa --seed 3 --out folder``
"""

import argparse
import sys
from collections.abc import Sequence
from itertools import product
from pathlib import Path

from cytovox.errors import InputError
from cytovox.simulation.files import write, write_time_lapse
from cytovox.simulation.fluorescence import stained
from cytovox.simulation.presets import PRESETS
from cytovox.simulation.timelapse import HOUR_S, RESPONSES
from cytovox.simulation.tomogram import DEFAULT_SHAPE, DEFAULT_SPACING_UM, Options, check_request, simulate
from cytovox.simulation.varied import ANY


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    line = argparse.ArgumentParser(prog="python -m cytovox.simulation", description=__doc__)
    line.add_argument(
        "--preset",
        nargs="+",
        default=["HeLa"],
        metavar="NAME",
        help=f"{', '.join((*PRESETS, ANY))}; all: every cell line",
    )
    line.add_argument("--seed", nargs="+", type=int, default=[0], metavar="N", help="random seeds, one per volume")
    line.add_argument("--shape", nargs=3, type=int, default=DEFAULT_SHAPE, metavar=("Z", "Y", "X"), help="voxels")
    line.add_argument(
        "--spacing", nargs=3, type=float, default=DEFAULT_SPACING_UM, metavar=("Z", "Y", "X"), help="voxel size in µm"
    )
    line.add_argument("--medium-ri", type=float, default=Options().medium_ri, metavar="N", help="index of the medium")
    line.add_argument("--stain", action="store_true", help="add a fluorescence channel CH0 that shows the nuclei")
    line.add_argument(
        "--stain-offset", nargs=3, type=float, default=(0, 0, 0), metavar=("Z", "Y", "X"),
        help="displacement of that channel in µm (0 0 0)",
    )  # fmt: skip
    line.add_argument("--time-lapse", "--film", choices=tuple(RESPONSES), help="write a time-lapse of treated cells")
    line.add_argument("--frames", type=int, default=9, metavar="N", help="frames of a time-lapse (9)")
    line.add_argument("--interval", type=float, default=60.0, metavar="MIN", help="minutes between frames (60)")
    line.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="folder to write to")
    return line


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code: 0, or 2 for an invalid request."""
    chosen = parser().parse_args(arguments)
    try:
        shape, spacing, options = tuple(chosen.shape), tuple(chosen.spacing), Options(medium_ri=chosen.medium_ri)
        wanted = list(product(PRESETS if chosen.preset == ["all"] else chosen.preset, chosen.seed))
        if chosen.stain and chosen.time_lapse:
            raise InputError("--stain: a time-lapse is written without fluorescence: leave out --time-lapse")
        for preset, seed in wanted:
            check_request(preset, seed, shape, spacing, options)
        for done, (preset, seed) in enumerate(wanted, start=1):
            if chosen.time_lapse:
                times_s = [frame * chosen.interval * HOUR_S / 60 for frame in range(chosen.frames)]
                path = write_time_lapse(chosen.out, preset, seed, chosen.time_lapse, times_s, shape, spacing, options)
            else:
                tomogram = simulate(preset, seed, shape, spacing, options)
                channel = stained(tomogram, offset_um=tuple(chosen.stain_offset)).volume if chosen.stain else None
                path = write(chosen.out, tomogram, channel)
            print(f"{done}/{len(wanted)} {path}", flush=True)
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    except OSError as error:
        print(f"{chosen.out}: cannot be written ({error.strerror or error}); choose another --out", file=sys.stderr)
        return 2
    print(f"written: {chosen.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
