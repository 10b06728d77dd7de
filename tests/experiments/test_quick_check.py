"""A typo is said before torch is imported, in the words of the whole check."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from experiments.compose import shipped_configs
from experiments.config import load_config
from experiments.errors import ConfigErrors
from experiments.quick_check import KEYS, quick_errors, stored_schema
from experiments.schema import Config
from experiments.tasks import TASKS

HOME = Path(__file__).resolve().parents[2]
CASES = [
    ("organelle_demo", "trainer.max_epoch=3", "optimizer.name=adamm", "predict.threshold=half"),
    ("cells", "method=fasst", "trainer.precision=[3]", "model.chanels=[4]"),
    ("shape_rbc", "sampler.stepss=3", "process.name=rectified"),
    ("shapr", "predict.views=maybe"),
    ("scnas_search_demo", "search.temprature=[1,2]", "trainer.ema={decay: 0.9, decy: 1}"),
    ("analyze", "meshess=all", "track.max_gapp=2", "border=exclud"),
    ("cells_from_masks", "membran=a.tif", "seeds.min_voxels=few"),
    ("organelle", "task=organell"),
]


def whole_check(config: str, words: list[str]) -> list[str]:
    with pytest.raises(ConfigErrors) as refused:
        load_config(config, words)
    return refused.value.errors


def test_the_stored_schema_is_that_of_the_code():
    stored = json.loads(KEYS.read_text(encoding="utf-8"))
    made = json.loads(json.dumps(stored_schema(TASKS, Config.task)))
    assert stored == made, "run docs/write_config_reference.py"


@pytest.mark.parametrize("case", CASES, ids=lambda case: case[0])
def test_a_typo_is_said_in_the_words_of_the_whole_check(case):
    config, *words = case
    errors = quick_errors(config, words)
    assert len(errors) >= len(words)
    assert errors == whole_check(config, words)


@pytest.mark.parametrize("name", shipped_configs())
def test_no_shipped_config_is_refused(name):
    assert quick_errors(name, []) == []


def test_what_it_cannot_judge_is_left_to_the_whole_check(tmp_path, monkeypatch):
    assert quick_errors("organelle", ["model.network=another_packages"]) == []
    assert quick_errors("", ["resume=RUN"]) == []
    old = tmp_path / "keys.json"
    old.write_text(json.dumps({**json.loads(KEYS.read_text()), "sources": "of an earlier version"}))
    monkeypatch.setattr("experiments.quick_check.KEYS", old)
    assert quick_errors("organelle", ["trainer.max_epoch=3"]) == []


CODE = """
import json, sys
from experiments.run import main
codes = [main(words) for words in json.loads(sys.argv[1])]
heavy = [name for name in ("torch", "pytorch_lightning", "lightning", "monai", "wandb") if name in sys.modules]
print(codes, heavy)
"""


def test_a_typo_in_any_task_imports_no_torch(tmp_path):
    words = json.dumps([list(case) for case in CASES] + [["organelle_dem"], ["organelle", "--plan", "--check"]])
    done = subprocess.run(
        [sys.executable, "-c", CODE, words], cwd=HOME, capture_output=True, text=True, check=True, timeout=300
    )
    assert done.stdout == f"{[2] * (len(CASES) + 2)} []\n", done.stderr
