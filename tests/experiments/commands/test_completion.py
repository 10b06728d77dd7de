"""What a shell completes, asked of the shell itself."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from experiments.commands import dispatch
from experiments.commands.parsers import build_parser, verbs_of
from experiments.compose import shipped_configs


@pytest.fixture
def script(capsys):
    def write(shell: str) -> str:
        assert dispatch(["completion", shell]) == 0
        return capsys.readouterr().out

    return write


def complete(script: str, words: list[str], cwd: Path) -> list[str]:
    """Ask bash for the completions of the last word."""
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

    def told(*words: str) -> set[str]:
        return set(complete(text, ["cytovox", *words], tmp_path))

    assert told("") >= set(verbs_of(build_parser()))
    assert told("pre") == {"predict"}
    assert told("train", "organelle_") == {name for name in shipped_configs() if name.startswith("organelle_")}
    assert told("train", "organ") == {*(n for n in shipped_configs() if n.startswith("organ")), "organs.yaml"}
    assert told("predict", "--config", "shap") == {name for name in shipped_configs() if name.startswith("shap")}
    assert told("shapes", "--weights", "shape_n") == {"shape_nuclei"}
    assert told("predict", "a") == {"a.TCF"}
    assert told("predict", "--ou") == {"--out"}
    assert told("sweep", "sweeps/o") == {"sweeps/organelle"}
    assert told("completion", "z") == {"zsh"}
    assert told("cache", "p") == {"prune"}
    assert told("simulate", "--pre") == {"--preset"}


@pytest.mark.parametrize("shell", ["zsh", "tcsh"])
def test_other_shells_read_their_script(script, tmp_path, shell):
    text = script(shell)
    assert all(name in text for name in verbs_of(build_parser()))
    if shell == "zsh":
        assert "organelle_demo" in text
    if (program := shutil.which(shell)) is None:
        pytest.skip(f"{shell} is not installed: its script was written, and not read")
    path = tmp_path / "script"
    path.write_text(text)
    load = f'autoload -Uz compinit; compinit -D -u; eval "$(<{path})"; (( $+_comps[cytovox] ))'
    flags = ["-f", "-c", load] if shell == "zsh" else ["-f", str(path)]
    done = subprocess.run([program, *flags], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
