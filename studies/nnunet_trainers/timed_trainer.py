"""An nnU-Net trainer that ends after given minutes; nnU-Net finds it by the variable `nnUNet_extTrainer`."""

from __future__ import annotations

import os
import time

import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

#: Minutes of training, from the end of the first step: nnU-Net compiles its network in that one.
MINUTES_VARIABLE = "CYTOVOX_NNUNET_MINUTES"
#: Most steps of the training; unset or empty for no limit.
STEPS_VARIABLE = "CYTOVOX_NNUNET_STEPS"
#: Of nnU-Net's polynomial schedule.
EXPONENT = 0.9
#: Validation patches of an epoch: nnU-Net's 50 would take a share of the minutes for a figure that nothing here uses.
VALIDATION_STEPS = 5


class TimedTrainer(nnUNetTrainer):
    """nnU-Net's trainer with its polynomial schedule over time instead of epochs."""

    def run_training(self) -> None:
        """Train until the time is up, and write `checkpoint_final.pth`."""
        minutes, most = float(os.environ[MINUTES_VARIABLE]), int(os.environ.get(STEPS_VARIABLE) or 0)
        self.num_val_iterations_per_epoch = VALIDATION_STEPS
        self.on_train_start()
        begun, steps = time.monotonic(), 0
        while (done := self._share(begun, minutes, steps, most)) < 1:
            self.on_epoch_start()
            self.on_train_epoch_start()
            outputs: list[dict] = []
            while len(outputs) < self.num_iterations_per_epoch and (done < 1 or not outputs):
                for group in self.optimizer.param_groups:
                    group["lr"] = self.initial_lr * (1 - min(done, 1)) ** EXPONENT
                outputs.append(self.train_step(next(self.dataloader_train)))
                steps += 1
                begun = time.monotonic() if steps == 1 else begun
                done = self._share(begun, minutes, steps, most)
            self.on_train_epoch_end(outputs)
            self._validate()
            self.on_epoch_end()
        self.print_to_log_file(f"cytovox: {steps} steps in {(time.monotonic() - begun) / 60:.2f} min")
        self.on_train_end()

    @staticmethod
    def _share(begun: float, minutes: float, steps: int, most: int) -> float:
        """Return how much of the training is done, by time or by steps; 1 at its end."""
        by_time = (time.monotonic() - begun) / (60 * minutes)
        return max(by_time, steps / most) if most else by_time

    def _validate(self) -> None:
        with torch.no_grad():
            self.on_validation_epoch_start()
            steps = range(self.num_val_iterations_per_epoch)
            self.on_validation_epoch_end([self.validation_step(next(self.dataloader_val)) for _ in steps])

    def perform_actual_validation(self, save_probabilities: bool = False) -> None:
        """Predict nothing: the study predicts the test volumes."""
