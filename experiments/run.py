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
    """Run, and return the exit code.

    Invalid input is one line per error on stderr and exit code 2, Ctrl-C 130. A training that diverges is one line and
    exit code 1. An analysis that left out broken inputs and finished the others ends with 3.
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
    arguments, extra = parser.parse_known_args(argv)
    shadow = shadowed()
    if shadow is not None:
        return _refuse(shadow)

    from cytovox.errors import InputError

    try:
        from experiments.quick_check import require_known_keys

        if arguments.plan and (arguments.check or arguments.dry_run):
            raise InputError("--plan: not with --check or --dry-run; choose one of them")
        words = [*arguments.overrides, *extra]
        if "=" in arguments.config and not Path(arguments.config).is_file():
            arguments.config, words = "", [arguments.config, *words]
        require_known_keys(arguments.config, words)  # a typo is reported before torch is imported, which takes seconds

        if arguments.submit:
            if arguments.plan or arguments.check or arguments.watch:
                raise InputError("--submit: not with --plan, --check or --watch; leave them out")
            from experiments.submit.submit import submit

            submit(arguments.config, words, arguments.dry_run)
            return 0
        from experiments.launch import launch

        return launch(arguments.config, words, arguments.check, arguments.dry_run, arguments.plan, arguments.watch)
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


def _refuse(text: str, code: int = 2) -> int:
    from training.refusal import note_refusal

    note_refusal()
    for line in text.splitlines():
        print(line, file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(program(main))
