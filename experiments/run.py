"""`python -m experiments.run CONFIG [key=value ...]`: train, test and apply a model as a YAML file describes it."""

import argparse
import sys
from collections.abc import Sequence

from experiments.program import program, run_command

USAGE = """\
python -m experiments.run CONFIG [key=value ...] [--check | --plan | --dry-run | --watch DIR | --submit]

CONFIG is a YAML file or the name of a shipped config, such as organelle_demo.
  stages=[fit,test,predict]        what to do
  predict.inputs=[cells/*.TCF]     what to predict
  predict.checkpoint=RUN           with which weights
  slurm.nodes=2 --submit           run it on a SLURM cluster
  resume=RUN                       resume a run folder (CONFIG may then be left out)
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run, and return the exit code.

    See `experiments.program.run_command` for exit codes. An analysis that left out broken inputs and finished the
    others returns 3.
    """
    parser = argparse.ArgumentParser(prog="experiments.run", usage=USAGE, description=__doc__, allow_abbrev=False)
    parser.add_argument(
        "config", metavar="CONFIG", nargs="?", default="", help="a YAML file, or the name of a shipped config"
    )
    parser.add_argument("overrides", metavar="key=value", nargs="*", help="override keys of the config")
    parser.add_argument("--check", action="store_true", help="validate the config and find its files; run nothing")
    parser.add_argument(
        "--plan", action="store_true", help="measure a few steps: memory, time, patches; run nothing else"
    )
    parser.add_argument("--dry-run", action="store_true", help="one step of every stage")
    parser.add_argument("--watch", metavar="DIR", help="task analyze: analyse new files of a folder as they appear")
    parser.add_argument("--submit", action="store_true", help="have SLURM run it; with --dry-run, print the script")
    arguments, extra = parser.parse_known_args(argv)
    return run_command(lambda: _run(arguments, [*arguments.overrides, *extra]))


def _run(arguments: argparse.Namespace, words: list[str]) -> int:
    from cytovox.errors import InputError
    from experiments.compose import named_config
    from experiments.quick_check import require_known_keys

    if arguments.plan and (arguments.check or arguments.dry_run):
        raise InputError("--plan: not with --check or --dry-run; choose one of them")
    config, words = named_config(arguments.config, words)
    require_known_keys(config, words)  # a misspelled key is reported before the slow import of torch
    if arguments.submit:
        if arguments.plan or arguments.check or arguments.watch:
            raise InputError("--submit: not with --plan, --check or --watch; leave them out")
        from experiments.submit.submit import submit

        submit(config, words, arguments.dry_run)
        return 0
    from experiments.launch import launch

    return launch(config, words, arguments.check, arguments.dry_run, arguments.plan, arguments.watch)


if __name__ == "__main__":
    sys.exit(program(main))
