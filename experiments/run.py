"""`python -m experiments.run CONFIG [key=value ...]`: train, test and apply a model out of one YAML."""

from __future__ import annotations

import argparse
import errno
import sys
from collections.abc import Sequence
from pathlib import Path

from experiments.shadow import program, shadowed

USAGE = """\
python -m experiments.run CONFIG [key=value ...] [--check | --plan | --dry-run | --watch DIR | --submit]

CONFIG is a YAML file or the name of a shipped config, such as organelle_demo.
  stages=[fit,test,predict]        what to do
  predict.inputs=[cells/*.TCF]     what to predict
  predict.checkpoint=RUN           with which weights
  slurm.nodes=2 --submit           have a cluster do it
  resume=RUN                       go on in a run folder (CONFIG may then be left out)
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run; the user's faults become one line each on stderr and exit code 2, Ctrl-C 130.

    A training that diverges is one line and exit code 1. A pipeline that had to leave out broken inputs, and finished
    the others, ends with 3.
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
    parser.add_argument("--watch", metavar="DIR", help="task analyze: analyse what lands in a folder, as it lands")
    parser.add_argument("--submit", action="store_true", help="have SLURM run it; with --dry-run, print the script")
    told, extra = parser.parse_known_args(argv)
    shadow = shadowed()
    if shadow is not None:
        return _refuse(shadow)

    from cytovox.errors import InputError

    try:
        from experiments.quick_check import require_known_keys

        if told.plan and (told.check or told.dry_run):
            raise InputError("--plan: not with --check or --dry-run; choose one of them")
        words = [*told.overrides, *extra]
        if "=" in told.config and not Path(told.config).is_file():
            told.config, words = "", [told.config, *words]
        require_known_keys(told.config, words)  # a typo is said before torch is imported, which takes seconds

        from experiments.launch import launch
        from experiments.tasks.pipelines import asks_for_pipeline

        if told.submit:
            if told.plan or told.check or told.watch:
                raise InputError("--submit: not with --plan, --check or --watch; leave them out")
            from experiments.submit.submit import submit

            submit(told.config, words, told.dry_run)
            return 0
        if asks_for_pipeline(told.config, words):
            if told.plan or told.dry_run:
                raise InputError("--plan, --dry-run: not for this task, which trains nothing; leave them out")
            from experiments.tasks.analyze.launch import launch_pipeline

            return launch_pipeline(told.config, words, told.watch, told.check)
        if told.watch is not None:
            raise InputError("--watch: only for task analyze; leave it out")
        launch(told.config, words, check=told.check, dry_run=told.dry_run, plan_only=told.plan)
    except InputError as error:
        return _refuse(str(error), error.exit_code)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)):
            raise
        return _refuse(f"{error.filename or 'disk'}: no space left: free some space, then run again")
    except KeyboardInterrupt as stop:
        print(stop if stop.args else "stopped", file=sys.stderr)
        return 130
    except BaseException as stop:
        from training.signals import Preempted, exit_code

        if not isinstance(stop, Preempted):
            raise
        return exit_code(stop)
    return 0


def _refuse(text: str, code: int = 2) -> int:
    from training.refusal import note_refusal

    note_refusal()
    for line in text.splitlines():
        print(line, file=sys.stderr)
    return code


def command() -> int:
    """The installed command `cytovox`."""
    return program(main)


if __name__ == "__main__":
    sys.exit(program(main))
