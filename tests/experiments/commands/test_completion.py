"""Completion, tested in the shells themselves."""

from __future__ import annotations

import os
import pty
import select
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from experiments.commands import dispatch
from experiments.commands.command_line import build_parser, verbs_of
from experiments.compose import shipped_configs


@pytest.fixture
def script(capsys):
    def write(shell: str) -> str:
        assert dispatch(["completion", shell]) == 0
        return capsys.readouterr().out

    return write


def complete(script: str, words: list[str], cwd: Path) -> list[str]:
    """Return the completions of the last word in bash."""
    listed = " ".join(f"'{word}'" for word in words)
    ask = (
        f"{script}\nCOMP_WORDS=({listed}); COMP_CWORD={len(words) - 1}; "
        "$(complete -p cytovox | sed 's/.*-F \\([^ ]*\\) .*/\\1/'); printf '%s\\n' \"${COMPREPLY[@]}\""
    )
    done = subprocess.run(["bash", "-c", ask], cwd=cwd, capture_output=True, text=True, timeout=60, check=True)
    assert done.stderr == ""
    return [line for line in done.stdout.splitlines() if line]


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_bash_completes_verbs_options_configs_weights_and_files(script, tmp_path):
    text = script("bash")
    (tmp_path / "organs.yaml").touch()
    (tmp_path / "a.TCF").touch()

    def output(*words: str) -> set[str]:
        return set(complete(text, ["cytovox", *words], tmp_path))

    assert output("") >= set(verbs_of(build_parser()))
    assert output("pre") == {"predict"}
    assert output("train", "organelle_") == {name for name in shipped_configs() if name.startswith("organelle_")}
    assert output("train", "organ") == {*(n for n in shipped_configs() if n.startswith("organ")), "organs.yaml"}
    assert output("predict", "--config", "shap") == {name for name in shipped_configs() if name.startswith("shap")}
    assert output("shapes", "--weights", "shape_n") == {"shape_nuclei"}
    assert output("predict", "a") == {"a.TCF"}
    assert output("predict", "--ou") == {"--out"}
    assert output("sweep", "sweeps/o") == {"sweeps/organelle"}
    assert output("completion", "z") == {"zsh"}
    assert output("cache", "p") == {"prune"}
    assert output("simulate", "--pre") == {"--preset"}


def typed(shell: list[str], setup: str, line: str, cwd: Path) -> str:
    """Type a line and the tab key into a shell, and return the completed line."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(cwd)
        os.environ["TERM"] = "dumb" if shell[0] == "zsh" else "xterm"  # tcsh completes nothing on a dumb one
        os.execvp(shell[0], shell)  # noqa: S606 - the shell that is tested

    def read(until: str) -> str:
        shown, end = "", time.monotonic() + 20
        while until not in shown and time.monotonic() < end:
            ready, _, _ = select.select([terminal], [], [], 0.2)
            shown += os.read(terminal, 65536).decode(errors="replace") if ready else ""
        return shown

    try:
        os.write(terminal, f"{setup}\n".encode())
        read("ready> ")
        os.write(terminal, f"{line}\t".encode())
        time.sleep(0.3)
        os.write(terminal, b"END")
        return read("END").rpartition("cytovox ")[2].partition("END")[0].strip(" \a\b")
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        os.close(terminal)


SETUP = {
    "zsh": "autoload -Uz compinit; compinit -D -u; eval \"$(<script)\"; PS1='rea''dy> '",
    "tcsh": "source script; set prompt='rea''dy> '",
}


@pytest.mark.parametrize("shell", ["zsh", "tcsh"])
@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("cytovox pre", "predict"), ("cytovox predict --ou", "predict --out"),
        ("cytovox train organelle_d", "train organelle_demo"), ("cytovox predict a.T", "predict a.TCF"),
        ("cytovox predict a.TCF b.T", "predict a.TCF b.TCF"), ("cytovox completion z", "completion zsh"),
    ],
)  # fmt: skip
def test_other_shells_complete_as_well(script, tmp_path, shell, line, expected):
    text = script(shell)
    assert all(name in text for name in [*verbs_of(build_parser()), "organelle_demo"])
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed: its script was written, and not read")
    (tmp_path / "script").write_text(text)
    for name in ("a.TCF", "b.TCF"):
        (tmp_path / name).touch()
    assert typed([shell, "-f", "-i"], SETUP[shell], line, tmp_path) == expected
