"""Commands: their exact arguments for `experiments.run`, and errors before slow imports."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

import experiments.run
from experiments.commands import dispatch


@pytest.fixture
def called(monkeypatch, tmp_path) -> Callable[..., list[str]]:
    """Return the arguments that a command line passes to `experiments.run`, in an empty folder."""
    calls: list[list[str]] = []

    def take(argv: list[str]) -> int:
        calls.append(list(argv))
        return 0

    monkeypatch.setattr(experiments.run, "main", take)
    monkeypatch.chdir(tmp_path)

    def call(*words: str) -> list[str]:
        calls.clear()
        assert dispatch(words) == 0
        (argv,) = calls
        return argv

    return call


@pytest.fixture
def refused(called, capsys) -> Callable[..., str]:
    """Return the one-line error of a command line."""

    def call(*words: str) -> str:
        assert dispatch(words) == 2
        captured = capsys.readouterr()
        assert captured.out == ""
        assert captured.err.count("\n") == 1, captured.err
        return captured.err.rstrip("\n")

    return call


def make_run(folder: Path, config: str) -> Path:
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "config.yaml").write_text(f"base: [{config}]\n")
    return folder


@pytest.mark.parametrize(
    ("words", "argv"),
    [
        ("train organelle_demo", ["organelle_demo", "stages=[fit,test]"]),
        ("train organelle_demo seed=2 --submit", ["--submit", "organelle_demo", "stages=[fit,test]", "seed=2"]),
        ("train --dry-run organelle_demo stages=[fit]", ["--dry-run", "organelle_demo", "stages=[fit]"]),
        ("train shapr data.root=x", ["shapr", "stages=[fit,test]", "data.root=x"]),
        ("test organelle_demo", ["organelle_demo", "stages=[test]"]),
        (
            "test organelle --weights organelle --weights b.ckpt --check",
            ["--check", "organelle", "stages=[test]", 'predict.checkpoint=["organelle","b.ckpt"]'],
        ),
        ("search scnas_search_demo", ["scnas_search_demo", "stages=[fit,test]"]),
        ("check analyze inputs=[a.TCF]", ["--check", "analyze", "inputs=[a.TCF]"]),
        ("plan organelle plan.device=V100-32GB", ["--plan", "organelle", "plan.device=V100-32GB"]),
        (
            "run organelle --plan stages=[predict] predict.inputs=[a]",
            ["organelle", "--plan", "stages=[predict]", "predict.inputs=[a]"],
        ),
        (
            "predict a.TCF --out m predict.format=nifti b.TCF",
            ["organelle", "stages=[predict]", 'predict.inputs=["a.TCF","b.TCF"]', 'predict.out="m"',
             "predict.format=nifti"],
        ),
        (
            "predict a.TCF --out m --weights organelle --config organelle_demo --plan",
            ["--plan", "organelle_demo", "stages=[predict]", 'predict.inputs=["a.TCF"]', 'predict.out="m"',
             'predict.checkpoint="organelle"'],
        ),
        (
            "predict --out m -- -a.TCF b.c=d",
            ["organelle", "stages=[predict]", 'predict.inputs=["-a.TCF","b.c=d"]', 'predict.out="m"'],
        ),
        (
            "cells --membrane m.nii --nucleus n.nii --ri a.TCF --out o method=watershed --check",
            ["--check", "cells_from_masks", 'membrane="m.nii"', 'nucleus="n.nii"', 'ri="a.TCF"', 'out="o"',
             "method=watershed"],
        ),
        ("cells membrane=m nucleus=n out=o", ["cells_from_masks", "membrane=m", "nucleus=n", "out=o"]),
        (
            "analyze a.TCF --groups */{group}_*.TCF --out r meshes=none",
            ["analyze", 'inputs=["a.TCF"]', 'groups="*/{group}_*.TCF"', 'out="r"', "meshes=none"],
        ),
        ("analyze --watch d watch.every_s=1", ["--watch=d", "analyze", "watch.every_s=1"]),
        ("analyze inputs=[a.TCF] --submit --dry-run", ["--dry-run", "--submit", "analyze", "inputs=[a.TCF]"]),
        ("shapes f --out s", ["shape_rbc", "stages=[predict]", 'predict.inputs=["f"]', 'predict.out="s"']),
        (
            "shapes f g --out s --weights shape_nuclei predict.samples=2",
            ["shape_nuclei", "stages=[predict]", 'predict.inputs=["f","g"]', 'predict.out="s"',
             'predict.checkpoint="shape_nuclei"', "predict.samples=2"],
        ),
    ],
)  # fmt: skip
def test_the_argument_list_of_each_verb(called, words, argv):
    assert called(*words.split(" ")) == argv


def test_a_run_folder_is_resumed(called, tmp_path):
    run = str(make_run(tmp_path / "runs" / "a b", "organelle_demo"))
    assert called("train", run) == [f"resume={run}"]
    assert called("train", f"resume={run}") == [f"resume={run}"]
    assert called("run", run, "--check") == [f"resume={run}", "--check"]
    assert called("test", run) == ["stages=[test]", f"resume={run}"]
    assert called("predict", "a.TCF", f"resume={run}") == [
        "stages=[predict]", 'predict.inputs=["a.TCF"]', f"resume={run}",
    ]  # fmt: skip


def test_weights_select_the_config_of_their_run(called, tmp_path, capsys):
    run = make_run(tmp_path / "runs" / "mine", "organelle_demo")
    (run / "checkpoints" / "best.ckpt").touch()
    for weights in (run, run / "checkpoints" / "best.ckpt"):
        argv = called("predict", "a.TCF", "--out", "m", "--weights", str(weights))
        assert argv[0] == str(run / "config.yaml")
        assert argv[-1] == f'predict.checkpoint="{weights}"'
        assert f"note: the config is {run / 'config.yaml'}" in capsys.readouterr().err
    argv = called("predict", "a.TCF", "--out", "m", "--weights", str(run), "--config", "organelle")
    assert argv[0] == "organelle"


@pytest.mark.usefixtures("called")
def test_inputs_of_the_run_of_the_weights_are_not_predicted_again(tmp_path, capsys):
    run = make_run(tmp_path / "runs" / "mine", "organelle_demo")
    (run / "config.yaml").write_text("base: [organelle]\npredict: {inputs: [old.TCF]}\n")
    assert dispatch(["predict", "--out", "m", "--weights", str(run)]) == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith("predict: no FILES; name the inputs")


def test_inputs_may_be_in_the_config(called, tmp_path):
    config = tmp_path / "mine.yaml"
    config.write_text("base: [organelle]\npredict: {inputs: [a.TCF], out: masks}\n")
    assert called("predict", "--config", str(config), "--out", "m") == [
        str(config), "stages=[predict]", 'predict.out="m"',
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("predict a.TCF --out m --config analyze", "predict: analyze is a config of task analyze, .* cytovox analyze$"),
        ("predict a.TCF --out m --config shape_rbc", "task shape, .* one of task organelle; use cytovox shapes"),
        ("predict a.TCF --out m --config scnas_search", "use cytovox search$"),
        ("predict a.TCF --out m --config cells", "use cytovox analyze$"),
        ("shapes a --out m --config organelle", "one of task shape or shapr; use cytovox predict"),
        ("shapes a --out m --config shapr --weights shape_rbc", "weights of task shape, .* task shapr; use cytovox"),
        ("analyze a.TCF --config cells_from_masks", "use cytovox cells$"),
        ("cells --membrane m --nucleus n --out o --config analyze", "use cytovox analyze$"),
        ("search organelle", "search: organelle is a config of task organelle, .* task search; use cytovox predict"),
        ("train analyze", "train: analyze is a config of task analyze, which trains nothing; use cytovox analyze"),
        ("plan cells_from_masks", "which trains nothing; use cytovox cells"),
        ("test analyze", "which trains nothing; use cytovox analyze"),
        ("shapes f --out s --weights organelle", "weights of task organelle, .* use cytovox predict FILES --weights W"),
        ("predict a.TCF --out s --weights shape_rbc", "of task shape, .* use cytovox shapes FOLDER --weights W"),
        ("predict a.TCF --out s --weights cells_offsets", "use cytovox analyze FILES cell_weights=W"),
        ("analyze a.TCF predict.format=nifti", "predict.format: a key of task organelle.* use cytovox predict"),
        ("analyze a.TCF trainer.max_epochs=3", "trainer.max_epochs: a key of task .* use cytovox train"),
        ("predict a.TCF --out m groups=x.csv", "groups: a key of task analyze, .* out, or use cytovox analyze"),
        ("shapes f --out s predict.stride=[1,1,1]", "predict.stride: a key of task organelle"),
        ("train organelle_demo predict.samples=3", "samples: a key of task shape, shapr, .* use cytovox shapes"),
        ("check analyze trainer.max_epochs=3", "trainer.max_epochs: a key of task organelle"),
        ("predict a.TCF --out m predict.out=n", "predict.out: given twice, as --out and as predict.out="),
        ("predict a.TCF --out m stages=[fit]", "stages: given twice"),
        ("predict a.TCF --out m predict={out:n}", "predict.out: given twice, as --out and as predict.out="),
        ("predict a.TCF predict=3", "predict: no --out"),
        ("predict a.TCF", "predict: no --out; name the folder"),
        ("predict --out m", "predict: no FILES; name the inputs, such as cytovox predict cells"),
        ("shapes --out m", "shapes: no FOLDER; name"),
        ("analyze", "analyze: no FILES; name"),
        ("analyze a.TCF --watch d", "FILES and --watch"),
        ("analyze --watch d --submit", "--watch: not with --check or --submit"),
        ("analyze a.TCF --dry-run", "--dry-run: only with --submit"),
        ("cells", "cells: no --membrane; .* use cytovox train cells"),
        ("cells trainer.max_epochs=3", "cells: no --membrane; .* use cytovox train cells"),
        ("cells --membrane m --nucleus n", "cells: no --out"),
        ("cells m.nii n.nii --out o", "cells: m.nii: unexpected; name the masks with --membrane and --nucleus"),
        ("train", "train: no CONFIG; give a YAML file, .*organelle_demo.*, or a run folder"),
        ("train organelle_demo stages=[predict]", "no fit among them; use cytovox run"),
        ("train organell", "did you mean organelle?"),
        ("train resume=nowhere", "nowhere: no run folder"),
        ("predict a.TCF --ouf m", r"cytovox predict: unknown option --ouf; did you mean --out\?; see cytovox predict"),
        ("check organelle a.yaml", "'a.yaml': expected key=value"),
        ("trian organelle", r"cytovox: trian: no such command; did you mean train\?$"),
        ("organele_demo", r"command; did you mean the config organelle_demo \(cytovox train organelle_demo\)\?"),
        ("xyz", "no such command; expected one of train, test"),
        ("--vershion", "unknown option --vershion; did you mean --version"),
        ("completion fish", "invalid choice: 'fish'"),
        ("export runs", "cytovox export: the following arguments are required: OUT"),
        ("simulate --out", "cytovox simulate: argument --out: expected one argument"),
        ("fetch shapes", "cytovox fetch: the following arguments are required: --out"),
        ("sweep --count x s", "cytovox sweep: argument --count: invalid int value: 'x'"),
    ],
)  # fmt: skip
def test_an_invalid_command_is_a_one_line_error_with_advice(refused, words, expected):
    output = refused(*words.split(" "))
    assert re.search(expected, output), output


def test_no_command_at_all(refused):
    assert "no command; expected one of train" in refused()


def test_the_task_is_read_from_weights_files(refused, tmp_path):
    weights = tmp_path / "w.safetensors"
    save_file({"a": np.zeros(1)}, weights, metadata={"cytovox": json.dumps({"task": "shapr"})})
    assert "weights of task shapr" in refused("predict", "a.TCF", "--out", "m", "--weights", str(weights))


def test_weights_of_unknown_task_are_checked_by_the_run(called, tmp_path):
    (tmp_path / "w.safetensors").write_bytes(b"no safetensors")
    (tmp_path / "w.ckpt").write_bytes(b"no checkpoint")
    for name in ("w.safetensors", "w.ckpt", "missing.ckpt"):
        assert called("predict", "a.TCF", "--out", "m", "--weights", name)[-1] == f'predict.checkpoint="{name}"'


def test_a_config_without_a_verb_still_runs_with_a_notice(called, capsys, monkeypatch):
    for words in (["organelle_demo", "seed=3"], ["resume=x"], ["--check", "organelle_demo"]):
        assert called(*words) == words
        assert capsys.readouterr().err == (
            "note: cytovox without a command ends with the next release; write cytovox run CONFIG\n"
        )
    monkeypatch.setenv("LOCAL_RANK", "1")
    called("organelle_demo")
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("verb", "module"),
    [
        ("sweep", "experiments.sweep"), ("export", "experiments.export"), ("fetch", "experiments.fetch"),
        ("simulate", "cytovox.simulation.__main__"),
    ],
)  # fmt: skip
def test_forwarded_commands_receive_their_arguments_unchanged(monkeypatch, verb, module):
    given = {
        "sweep": ["sweeps/organelle", "--count", "2"],
        "export": ["--half", "run", "w.safetensors"],
        "fetch": ["shapes", "--out", "d", "--only", "*.zip"],
        "simulate": ["--preset", "HeLa", "A549", "--seed", "1", "2", "--out", "d"],
    }[verb]
    calls = []
    __import__(module)
    monkeypatch.setattr(sys.modules[module], "main", lambda argv: calls.append(argv) or 5)
    assert dispatch([verb, *given]) == 5
    assert calls == [given]


def test_a_stop_ends_without_a_traceback(monkeypatch, capsys):
    def stop(argv: list[str]) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr("cytovox.simulation.__main__.main", stop)
    assert dispatch(["simulate", "--out", "d"]) == 130
    assert capsys.readouterr().err == "stopped\n"
