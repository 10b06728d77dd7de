"""`python -m experiments.sweep SWEEP.yaml --count N`: a W&B sweep without W&B's server."""

import argparse
import re
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from experiments.program import program, run_command

USAGE = """\
python -m experiments.sweep SWEEP [--count N] [--submit [--dry-run] slurm.key=value ...]

SWEEP is a sweep file as W&B documents it, or the name of a shipped one, such as sweeps/organelle. W&B's own engine
chooses its runs, on this machine and without a server. To resume a sweep, run the same command again; several agents
may run at once. With --submit, SLURM runs the agents as an array of jobs: for this engine, or for a sweep of a W&B
server, named ENTITY/PROJECT/ID.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument("sweep", metavar="SWEEP", help="a sweep file, a shipped sweep, or ENTITY/PROJECT/ID")
    parser.add_argument("words", metavar="slurm.key=value", nargs="*", help="with --submit: resources of the jobs")
    parser.add_argument("--count", type=int, default=None, help="runs of the sweep in all (else until it is done)")
    parser.add_argument("--submit", action="store_true", help="have SLURM run slurm.array agents")
    parser.add_argument("--dry-run", action="store_true", help="with --submit: print the script")
    parser.add_argument("--check", action="store_true", help="validate the sweep and print its command")


def main(argv: Sequence[str] | None = None) -> int:
    """Run a sweep; return the exit code as `experiments.program.run_command` does."""
    parser = argparse.ArgumentParser(prog="experiments.sweep", usage=USAGE, description=__doc__, allow_abbrev=False)
    add_arguments(parser)
    args = parser.parse_intermixed_args(argv)
    return run_command(lambda: _run(args), "stopped; run the same command again to resume")


def _run(args: argparse.Namespace) -> int:
    from cytovox.errors import InputError
    from experiments.sweeps.sweep_file import find_sweep, read_sweep

    if args.count is not None and args.count < 1:
        raise InputError(f"--count: expected 1 or more, got {args.count}")
    served = re.fullmatch(r"[\w.-]+/[\w.-]+/[\w-]+", args.sweep) and not Path(args.sweep).exists()
    if args.submit:
        if args.check:
            raise InputError("--submit: not with --check; leave one of them out")
        from experiments.submit.submit import submit_sweep

        submit_sweep(args.sweep if served else find_sweep(args.sweep), args.words, args.count, args.dry_run)
        return 0
    if args.words or args.dry_run:
        raise InputError("slurm.key=value, --dry-run: only with --submit; the sweep file itself defines what is varied")
    if served:
        raise InputError(
            f"{args.sweep}: a sweep of a W&B server is run by `wandb agent {args.sweep}`, or with --submit"
        )
    sweep = read_sweep(find_sweep(args.sweep))
    if args.check:
        print(
            f"the sweep is valid; its runs would be\n  {shlex.join(sweep.command({'KEY': 'VALUE'}))}\nin {sweep.folder}"
        )
        return 0
    from experiments.sweeps.agent import work
    from experiments.sweeps.results import print_results

    print_results(sweep, work(sweep, args.count).runs())
    return 0


if __name__ == "__main__":
    sys.exit(program(main))
