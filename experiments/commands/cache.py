"""`cytovox cache`: list the files of the cache with their size, and remove those that are no longer used."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cytovox.errors import InputError
from experiments.commands.parsers import FOLDER, add_completed, add_verb

if TYPE_CHECKING:
    from experiments.commands.cache_files import CacheFile


def add_verbs(commands: Any) -> None:
    """Add the command of this module."""
    parser = add_verb(
        commands, "cache", run, "list the files of the cache with their size, and remove old ones",
        "cytovox cache\ncytovox cache prune --older-than 30 --max-size 20",
        "[--json] [--cache-dir DIR] | cache prune [--older-than DAYS] [--max-size GB] [--yes]",
    )  # fmt: skip
    parser.add_argument(
        "action", nargs="?", choices=["list", "prune"], default="list",
        help="list (default) or prune: list the files to remove, and with --yes remove them",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    add_completed(
        parser, FOLDER, "--cache-dir", metavar="DIR",
        help="another cache folder, such as data.cache_dir; by default CYTOVOX_CACHE, or else the user's cache",
    )  # fmt: skip
    parser.add_argument(
        "--older-than", type=float, metavar="DAYS", help="prune: files last used longer ago; at least 1 day"
    )
    parser.add_argument(
        "--max-size",
        type=float,
        metavar="GB",
        help="prune: files last used longest ago, until this much is left",
    )
    parser.add_argument("--yes", action="store_true", help="prune: remove the files that are listed")


def run(args: argparse.Namespace) -> int:
    """List or prune the cache."""
    from datamodules.cache import cache_root
    from experiments.commands.cache_files import find_files, records_no_reads

    root = cache_root(args.cache_dir).absolute()
    if root.exists() and not root.is_dir():
        raise InputError(f"cache: {root}: not a folder; name a cache folder with --cache-dir or CYTOVOX_CACHE")
    if args.action == "list" and (args.older_than is not None or args.max_size is not None or args.yes):
        raise InputError("cache: --older-than, --max-size, --yes: only with prune; write cytovox cache prune")
    files, others = find_files(root)
    if root.is_dir() and records_no_reads(root):
        print(f"note: the disk of {root} records no reads: last used is the time of writing", file=sys.stderr)
    if args.action == "prune":
        return _prune(root, files, args)
    if args.json:
        print(json.dumps(_summary(root, files, others), indent=2))
        return 0
    print(f"cache: {root}")
    _print_table(root, files, "nothing is in the cache")
    if others:
        print(f"not written by Cytovox, and never removed: {len(others)} files, {as_size(_size(others))}")
    return 0


def _prune(root: Path, files: list[CacheFile], args: argparse.Namespace) -> int:
    from experiments.commands.cache_files import choose, open_files, remove

    if args.older_than is None and args.max_size is None:
        raise InputError("cache prune: no criterion; give --older-than DAYS or --max-size GB, or both")
    if args.older_than is not None and not args.older_than >= 1:
        raise InputError(
            f"cache prune: --older-than {args.older_than:g}: expected 1 day or more: a run may be using files read "
            "within a day"
        )
    if args.max_size is not None and not args.max_size >= 0:
        raise InputError(f"cache prune: --max-size {args.max_size:g}: expected gigabytes, 0 or more")
    chosen = choose(files, time.time(), args.older_than, args.max_size)
    in_use = open_files(root) if chosen else set()
    held = [file for file in chosen if file.path in in_use]
    chosen = [file for file in chosen if file.path not in in_use]
    removed = remove(chosen, root) if args.yes else []
    if args.json:
        listed = {"removed": args.yes, "in_use": len(held), **_summary(root, removed if args.yes else chosen, [])}
        print(json.dumps(listed, indent=2))
        return 0
    print(f"cache: {root}")
    _print_table(root, chosen, "nothing to remove")
    if held:
        print(f"kept: {len(held)} files that a process has open")
    if not chosen:
        return 0
    if not args.yes:
        print("nothing was removed; repeat the command with --yes to remove these files")
        return 0
    if changed := len(chosen) - len(removed):
        print(f"kept: {changed} files that were used or changed meanwhile")
    left = _size(files) - _size(removed)
    print(f"removed: {len(removed)} files, {as_size(_size(removed))}; {as_size(left)} are left")
    return 0


def _rows(root: Path, files: Sequence[CacheFile]) -> list[dict[str, Any]]:
    from experiments.commands.cache_files import KINDS

    groups = {kind: [file for file in files if file.kind == kind.name] for kind in KINDS}
    return [
        {
            "what": kind.about,
            "path": str(root / kind.name),
            "files": len(own),
            "bytes": _size(own),
            "last_used": max(file.last_used for file in own),
        }
        for kind, own in groups.items()
        if own
    ]


def _size(files: Iterable[CacheFile]) -> int:
    return sum(file.size for file in files)


def _summary(root: Path, files: Sequence[CacheFile], others: Sequence[CacheFile]) -> dict[str, Any]:
    rows = [
        {**row, "last_used": datetime.fromtimestamp(row["last_used"], UTC).isoformat(timespec="seconds")}
        for row in _rows(root, files)
    ]
    total, foreign = ({"files": len(found), "bytes": _size(found)} for found in (files, others))
    return {"cache": str(root), "kinds": rows, "total": total, "not_written_by_cytovox": foreign}


def _print_table(root: Path, files: Sequence[CacheFile], empty: str) -> None:
    from rich.console import Console
    from rich.table import Table

    rows = _rows(root, files)
    if not rows:
        print(empty)
        return
    table = Table("what", "where", "files", "size", "last used")
    for row in rows:
        used = datetime.fromtimestamp(row["last_used"]).strftime("%Y-%m-%d %H:%M")
        table.add_row(row["what"], f"{Path(row['path']).name}/", str(row["files"]), as_size(row["bytes"]), used)
    table.add_row("all", "", str(len(files)), as_size(_size(files)), "")
    console = Console()
    (console if console.is_terminal else Console(width=120)).print(table)


def as_size(count: int) -> str:
    """Return a number of bytes in the largest decimal unit with at least one digit before the point."""
    size, unit = float(count), "B"
    for larger in ("kB", "MB", "GB", "TB"):
        if size < 1000:
            break
        size, unit = size / 1000, larger
    return f"{size:.0f} B" if unit == "B" else f"{size:.1f} {unit}"
