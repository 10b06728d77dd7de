"""`python -m experiments.fetch shapes --out DIR`: download the full sets of red blood cells and nuclei from Zenodo."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from experiments.program import run_command


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument("what", choices=["shapes"], help="shapes: 825 red blood cells of 6 classes, and nuclei")
    parser.add_argument("--out", metavar="DIR", type=Path, required=True, help="folder to fetch into; made if needed")
    parser.add_argument("--only", metavar="GLOB", default="*", help="a glob over the record's files")
    parser.add_argument("--url", default=None, help="base URL of Zenodo's API, or of a mirror that answers like it")
    parser.add_argument("--record", default=None, help="number of the record")


def main(argv: Sequence[str] | None = None) -> int:
    """Download and unpack; return the exit code as `experiments.program.run_command` does."""
    parser = argparse.ArgumentParser(prog="experiments.fetch", description=__doc__, allow_abbrev=False)
    add_arguments(parser)
    args = parser.parse_args(argv)
    return run_command(lambda: _run(args), "stopped; run the same command again to continue")


def _run(args: argparse.Namespace) -> int:
    from datamodules.fetch import SHAPES_RECORD, ZENODO_URL

    for root in fetch_shapes(args.out, args.record or SHAPES_RECORD, args.url or ZENODO_URL, args.only):
        print(f"cells: data.root={root}")
    print(f"fetched: {args.out}")
    return 0


def fetch_shapes(out: Path, record: str, url: str, only: str = "*") -> list[Path]:
    """Download a record, unpack its zip archives, and return the folders that a config can name as `data.root`.

    Parameters
    ----------
    out : Path
        Folder of the downloaded files; each archive is unpacked to a folder next to it.
    record : str
        Number of the Zenodo record.
    url : str
        Base URL of Zenodo's API, or of a mirror.
    only : str
        A glob over the files of the record.
    """
    from cytovox.io.deletion import has_manifest
    from cytovox.io.names import safe_name
    from datamodules.fetch import fetch_record
    from datamodules.unzip import require_replaceable, unzip
    from experiments.progress import Bars

    with Bars() as bars:
        files = fetch_record(
            out, record, url, only, lambda name, done, size: bars(f"{name} (kB)", done // 1000, size // 1000)
        )
        for path in files:
            folder = out / safe_name(path.name[: -len(".zip")])
            # folders are unpacked atomically: one of ours that is newer than its archive is complete
            unpacked = has_manifest(folder) and folder.stat().st_mtime >= path.stat().st_mtime
            if path.suffix.lower() == ".zip" and not unpacked:
                require_replaceable(folder)
                unzip(path, folder, lambda done, size, p=path: bars(f"unpacking {p.name}", done, size))  # type: ignore[misc]
    return layouts_below(out)


def layouts_below(folder: Path) -> list[Path]:
    """Return the folders that hold `image`, `mask` and `obj`, or `train` and `test` with these three each."""
    kinds = ("image", "mask", "obj")
    flat = {p.parent for p in folder.rglob("obj") if all((p.parent / kind).is_dir() for kind in kinds)}
    split = {p.parent for p in flat if p.name in ("train", "test") and {p.parent / "train", p.parent / "test"} <= flat}
    inner = {p for p in flat if p.parent in split and p.name in ("train", "test")}
    return sorted((flat - inner) | split)


if __name__ == "__main__":
    sys.exit(main())
