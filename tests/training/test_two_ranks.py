"""Two processes train, validate and test with fewer volumes than processes, and none waits for the other for ever."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from cytovox.io import write_nifti

SCRIPT = """
import json, sys
from pathlib import Path
import pytorch_lightning as pl, torch
from torch import nn
from datamodules.config import FolderData, Split
from datamodules.organelle import OrganelleDataModule
from cytovox.models.metadata import OrganelleMetadata
from lightning_modules.optim import Adam
from lightning_modules.organelle import OrganelleModule
from cytovox.losses.segmentation import LOSSES
from training.trainer import TrainerConfig, build_trainer
from training.rundir import RunFolder
from cytovox.inference.tiling import SlidingWindow

root = Path(sys.argv[1])
config = FolderData(
    organelles=["nucleus"], root=str(root), volumes="?.nii.gz", masks="*_{organelle}.nii.gz", patch_size=[8, 8, 8],
    resample_spacing_um=[1.0] * 3, batch_size=1, patches_per_epoch=4, num_workers=0,
    split=Split(["0.nii.gz"], ["1.nii.gz"], ["2.nii.gz", "3.nii.gz", "4.nii.gz"]),
)
metadata = OrganelleMetadata(
    task="organelle", model={}, organelles=["nucleus"], resample="spacing_um",
    resample_spacing_um=[1.0] * 3, resample_grid=[8] * 3, ri_range=[1.33, 1.39], patch_size=[8] * 3,
)
torch.manual_seed(0)
tiling = SlidingWindow(window=(8, 8, 8), stride=(8, 8, 8), pad_yx=(0, 0))
module = OrganelleModule(nn.Conv3d(1, 1, 3, padding=1), metadata, tiling, LOSSES["dice_bce"]().build(), Adam())
trainer = build_trainer(
    TrainerConfig(max_epochs=2, accelerator="cpu", devices=2, strategy="ddp", precision="32-true",
                  enable_progress_bar=False),
    RunFolder(root / "run"), [], "val/dice_mean", dry_run=False,
)
data = OrganelleDataModule(config, seed=0)
trainer.fit(module, datamodule=data)
val = float(trainer.callback_metrics["val/dice_mean"])
trainer.test(module, datamodule=data, verbose=False)
results = {"cases": [c.name for c in module.scores.cases], "means": module.scores.means(), "val": val,
        "weight": float(module.network.weight.sum())}
(root / f"{trainer.global_rank}.json").write_text(json.dumps(results))
"""


@pytest.mark.slow
def test_two_ranks_with_one_validation_volume_agree(tmp_path: Path) -> None:
    z, y, x = np.ogrid[:8, :12, :12]
    for n in range(5):
        ball = (z - 4) ** 2 + (y - 5) ** 2 + (x - 4 - n / 2) ** 2 < 9
        write_nifti(tmp_path / f"{n}.nii.gz", (1.34 + 0.03 * ball).astype(np.float32), (1.0, 1.0, 1.0))
        write_nifti(tmp_path / f"{n}_nucleus.nii.gz", ball.astype(np.uint8), (1.0, 1.0, 1.0))
    (tmp_path / "two.py").write_text(SCRIPT)
    home = str(Path(__file__).resolve().parents[2])
    unset = {k: v for k, v in os.environ.items() if not k.startswith(("SLURM_", "TORCHELASTIC_", "COV_"))}
    done = subprocess.run(
        [sys.executable, str(tmp_path / "two.py"), str(tmp_path)], capture_output=True, text=True, timeout=1800,
        check=False, env={**unset, "PYTHONPATH": home, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    first, second = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1))
    assert first == second
    assert first["cases"] == ["2.nii.gz", "3.nii.gz", "4.nii.gz"]
