"""Test and predict stages of an organelle run."""

import sys
from pathlib import Path

from cytovox.errors import InputError
from cytovox.io.provenance import ContentDigests, Fingerprint
from cytovox.models.domain import frame_outside
from datamodules.cache import cache_root
from datamodules.fingerprints import volume_fingerprints
from datamodules.paths import shard_of
from datamodules.steps import STEPS
from experiments.stages import Run
from experiments.tasks.base import predict_each, record_seen
from lightning_modules.organelle import OrganelleModule
from lightning_modules.scoring import mean_dice
from lightning_modules.seen import counted_seen
from training.prediction import MaskWriter, collect_table, output_names
from training.progress_bar import reporter
from training.results import draw_examples, write_test_tables


def test(run: Run) -> None:
    """Score the best weights on the test cases, each on its native grid."""
    cases = run.data.find()["test"]
    module: OrganelleModule = run.module()
    run.trainer.test(module, datamodule=run.data, verbose=False)
    if not run.trainer.is_global_zero:
        return
    scores = module.scores
    fingerprints = run.data.fingerprints(("test",))
    seen, _ = counted_seen(module.metadata, fingerprints)
    write_test_tables(scores, run.folder, seen)
    draw_examples(module, scores, list(cases), run.folder)
    windows = {f"test/window_dice_{w.organelle}": w.dice for w in scores.windows.fit().values() if w.n}
    means = {f"test/{name}": value for name, value in scores.means().items()}
    lines = {
        f"test/{line.replace('/', '_')}/{name}": value
        for line, found in scores.by_cell_line().items()
        for name, value in mean_dice(scores.organelles, found).items()
    }
    run.folder.update_metrics({**means, **windows, **lines, "test/cases": len(scores.cases)})
    scored = [fingerprints[score.index] for score in scores.cases]
    record_seen(run, module, scored, "test", "test cases", "their scores say nothing about new tomograms")


def predict(run: Run) -> None:
    """Write masks of every input. Finished files are not predicted again."""
    module: OrganelleModule = run.module()
    predict = run.config.predict
    spacing = predict.spacing_um
    digests, weights, precision = ContentDigests(cache_root(None)), run.weights_digests(), str(run.trainer.precision)
    missing = ", ".join(name for name in run.config.data.organelles if name not in module.organelles)
    other = f"{missing}: asked for (data.organelles), but not predicted by these weights" if missing else ""

    def fingerprint(path: Path) -> Fingerprint:
        """Return the fingerprint of the masks of a file; `datamodules.steps` lists the keys that do not affect it."""
        return STEPS["predict.masks"].fingerprint(
            run.config, input=digests.of(path), content_of_weights=weights, precision=precision
        )

    writer = MaskWriter(
        run.folder,
        module.organelles,
        output_names(run.inputs),
        threshold=predict.threshold,
        file_format=predict.format,
        probabilities=predict.probabilities,
        spacing_um=(spacing[0], spacing[1], spacing[2]) if spacing is not None else None,
        spacing_from=predict.spacing_from,
        series=predict.series,
        fingerprint=fingerprint,
        outside=lambda read, volume: "; ".join(filter(None, [other, frame_outside(run.trained_on, read, volume)])),
        report_note=lambda text: print(f"note: {text}", file=sys.stderr),
        out=Path(predict.out) if predict.out is not None else None,
    )
    writer.report = reporter(run.trainer)
    module.write_masks = writer
    mine = shard_of(run.inputs, predict.shard)
    predict_each(run, module, mine)
    if run.trainer.is_global_zero and predict.shard is None:
        collect_table(run.folder)
        run.folder.update_metrics({"predict/files": sum(writer.is_done(path) for path in run.inputs)})
        found = volume_fingerprints([path for path in run.inputs if path.exists()], cache_root(None))
        record_seen(run, module, found, "predict", "inputs", "their masks are better than those of new tomograms")
    errors = run.gathered(writer.errors)
    if len(mine) > 1 and errors:
        errors.append(
            f"predict.inputs: {len(errors)} of {len(mine)} files could not be predicted; the others are in "
            f"{writer.target}; fix them, then resume={run.folder.path}"
        )
    if errors:
        raise InputError("\n".join(errors))
