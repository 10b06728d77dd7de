"""The stages of a run: fit, test, predict. Each may be repeated, and each leaves its results in the run folder."""

from __future__ import annotations

import dataclasses
import hashlib
import time
from pathlib import Path

import pytorch_lightning as pl
import torch.distributed
from torch.utils.data import DataLoader

from datamodules.organelle import OrganelleDataModule
from datamodules.sampling import EvaluationSampler
from experiments.build import build_for_training, build_from_weights, find_weights, read_weights
from experiments.config import Config
from formats.errors import InputError
from lightning_modules.organelle import OrganelleModule
from lightning_modules.scoring import mean_dice
from training.pace import fit_metrics
from training.prediction import MaskWriter, collect_table, output_names
from training.results import draw_examples, write_test_tables
from training.rundir import RunFolder
from training.trainer import checkpoint_path


@dataclasses.dataclass
class Run:
    """What the stages of one run share."""

    config: Config
    folder: RunFolder
    trainer: pl.Trainer
    data: OrganelleDataModule
    inputs: list[Path]
    """Files of the predict stage."""

    def __post_init__(self) -> None:
        self._loaded: tuple[list[Path], OrganelleModule] | None = None

    def fit(self) -> None:
        """Train, from the last checkpoint of the folder if there is one."""
        module = build_for_training(self.config)
        begun = time.perf_counter()
        self.trainer.fit(module, datamodule=self.data, ckpt_path=checkpoint_path(self.folder), weights_only=True)
        if self.trainer.interrupted:
            raise KeyboardInterrupt
        if self.trainer.is_global_zero:
            best = self.trainer.checkpoint_callback
            score = getattr(best, "best_model_score", None)
            self.folder.update_metrics(
                {
                    "fit/seconds": time.perf_counter() - begun,
                    "fit/steps": self.trainer.global_step,
                    "fit/epochs": self.trainer.current_epoch,
                    **fit_metrics(self.trainer),
                    "fit/parameters": sum(p.numel() for p in module.network.parameters()),
                    **({"val/dice_mean": float(score)} if score is not None else {}),
                }
            )
        self.trainer.strategy.barrier("fit")

    def test(self) -> None:
        """Score the best weights on the test cases, each on its own grid."""
        cases = self.data.find()["test"]
        module = self._module()
        self.trainer.test(module, datamodule=self.data, verbose=False)
        if not self.trainer.is_global_zero:
            return
        scores = module.scores
        write_test_tables(scores, self.folder)
        draw_examples(module, scores, list(cases), self.folder)
        windows = {f"test/window_dice_{w.organelle}": w.dice for w in scores.fit_windows().values() if w.n}
        means = {f"test/{name}": value for name, value in scores.means().items()}
        lines = {}
        for line, found in scores.groups().items():
            key = f"test/{line.replace('/', '_')}"
            lines.update({f"{key}/{name}": value for name, value in mean_dice(scores.organelles, found).items()})
        self.folder.update_metrics({**means, **windows, **lines, "test/cases": len(scores.cases)})

    def predict(self) -> None:
        """Write masks of every input; files that are done are not done again."""
        module = self._module()
        predict = self.config.predict
        spacing = predict.spacing_um
        writer = MaskWriter(
            self.folder,
            module.organelles,
            output_names(self.inputs),
            threshold=predict.threshold,
            file_format=predict.format,
            probabilities=predict.probabilities,
            spacing_um=(spacing[0], spacing[1], spacing[2]) if spacing is not None else None,
            weights=self._origin(module),
            out=Path(predict.out) if predict.out is not None else None,
        )
        module.write_masks = writer
        sampler = EvaluationSampler(len(self.inputs), self.trainer.global_rank, self.trainer.world_size)
        loader: DataLoader = DataLoader(self.inputs, batch_size=None, sampler=sampler)  # type: ignore[arg-type]
        self.trainer.predict(module, loader, return_predictions=False)
        self.trainer.strategy.barrier("predict")
        if self.trainer.is_global_zero:
            collect_table(self.folder)
            done = sum(writer.is_done(path) for path in self.inputs)
            self.folder.update_metrics({"predict/files": done})
        faults = self._gathered(writer.faults)
        if len(self.inputs) > 1 and faults:
            faults.append(
                f"predict.inputs: {len(faults)} of {len(self.inputs)} files could not be predicted; the others are in "
                f"{writer.target}; mend them, then resume={self.folder.path}"
            )
        if faults:
            raise InputError("\n".join(faults))

    def _gathered(self, faults: list[str]) -> list[str]:
        """Every rank's faults, on every rank."""
        if self.trainer.world_size == 1:
            return faults
        everyone: list[list[str]] = [[] for _ in range(self.trainer.world_size)]
        torch.distributed.all_gather_object(everyone, faults)
        return [fault for told in everyone for fault in told]

    def _origin(self, module: OrganelleModule) -> str:
        """What probabilities depend on beside their input: weights' content, windows, mirror images and precision."""
        assert self._loaded is not None
        digests = []
        for path in self._loaded[0]:
            with path.open("rb") as file:
                digests.append(hashlib.file_digest(file, "sha256").hexdigest())
        windows = dataclasses.replace(module.tiling, sw_batch_size=1)
        return " ".join([*sorted(digests), str(windows), "".join(sorted(module.flips)), str(self.trainer.precision)])

    def _module(self) -> OrganelleModule:
        """The module with the weights that test and predict use."""
        paths = find_weights(self.config, self.folder)
        if self._loaded is None or self._loaded[0] != paths:
            if self.trainer.is_global_zero:
                print(f"weights: {', '.join(map(str, paths))}", flush=True)
            module = build_from_weights(self.config, read_weights(self.config, paths))
            self._loaded = (paths, module)
        return self._loaded[1]
