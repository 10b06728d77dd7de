"""Files as users have them through the command line: one tomogram in many kinds of file gives one result."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tifffile

from cytovox.io import write_nifti, write_ometiff, write_omezarr
from datamodules.paths import stem_of
from tests.cytovox.io import variants
from tests.cytovox.io.variants import BOX, DROP_UM3, GIVEN, VARIANTS, Variant
from tests.experiments.folders import rows

#: Of each kind of file some, without those of another grid or of several frames.
_READ = [v for v in VARIANTS if not v.refused and not set(v.read) - {"spacing_um"} and v.shape[2:] == variants.SHAPE]
READ = [v for v in _READ if v.shape[0] == 1][::6]
REFUSED = [v for v in VARIANTS if v.refused and not v.read][::5]


def _made(folder: Path, variant: Variant, number: int) -> Path:
    """A file of its own name, and its mask beside it."""
    suffix = next(s for s in (".ome.tif", ".ome.zarr", ".nii.gz", *Path(variant.name).suffixes) if s in variant.name)
    made = variant.make(folder / f"v{number:03d}{suffix}")
    return made if isinstance(made, Path) else folder / f"v{number:03d}{suffix}"


@pytest.fixture(scope="module")
def measured(cli, tmp_path_factory: pytest.TempPathFactory) -> tuple[pd.DataFrame, list[Path]]:
    """Every readable variant measured in one run; masks of one drop."""
    folder = tmp_path_factory.mktemp("variants")
    inside = np.zeros(variants.SHAPE, np.uint8)
    inside[BOX] = 255
    inputs = [_made(folder, variant, k) for k, variant in enumerate(READ)]
    tables = []
    for name, some in (
        ("own", [p for p, v in zip(inputs, READ, strict=True) if "spacing_um" not in v.read]),
        ("given", [p for p, v in zip(inputs, READ, strict=True) if "spacing_um" in v.read]),
    ):
        (folder / f"{name}.txt").write_text("\n".join(map(str, some)), encoding="utf-16")
        for path in some:
            tifffile.imwrite(folder / f"{stem_of(path)}_mask.tif", inside, photometric="minisblack", compression="lzw")
        words = [
            "analyze", f"inputs=[{folder}/{name}.txt]", f"out={folder}/{name}", f"cells={folder}/{{stem}}_mask.tif",
            f"organelles={folder}/{{stem}}_mask.tif", "organelle_names=[membrane]", "border=include", "meshes=none",
            "workers=0", "mask_axes=header",  # the masks lie as ITK-SNAP shows a NIfTI whose header mirrors axes
        ]  # fmt: skip
        words += [f"spacing_um=[{','.join(map(str, GIVEN['spacing_um']))}]"] if name == "given" else []
        answer = cli(*words)
        assert answer.code == 0, answer.err
        tables.append(pd.read_csv(folder / name / "tables" / "cells.csv"))
    return pd.concat(tables), inputs


def test_every_kind_of_file_gives_the_same_cell(measured) -> None:
    table, inputs = measured
    whole = table[table["compartment"] == "cell"]
    assert len(whole) == len(inputs)
    np.testing.assert_allclose(whole["volume_um3"], DROP_UM3, rtol=1e-4)
    np.testing.assert_allclose(whole["mean_ri"], variants.DROP_RI, rtol=1e-3)


@pytest.mark.parametrize("variant", REFUSED, ids=lambda variant: variant.name)
def test_what_cannot_be_read_is_reported_in_one_line(cli, tmp_path: Path, variant: Variant) -> None:
    made = variant.make(tmp_path / variant.name)
    path = made if isinstance(made, Path) else tmp_path / variant.name
    masks = [f"organelles={tmp_path}/none.tif", f"cells={tmp_path}/none.tif"]
    answer = cli("analyze", f"inputs=[{path}]", f"out={tmp_path}/out", *masks, "workers=0")
    assert answer.code in (2, 3)
    assert "Traceback" not in answer.err
    assert path.name[:6] in answer.err
    assert not (tmp_path / "out" / "tables" / "cells.csv").exists() or "analysed 0 files" in answer.out


def test_predictions_do_not_depend_on_the_kind_of_file(cli, tmp_path: Path, trained, tiny, cells) -> None:
    from cytovox.io import read_volume

    volume = read_volume(cells / "HeLa-00002.TCF")
    ri, spacing = volume.frame(), volume.spacing_um
    whole = np.rint(ri * 1e4).astype(np.uint16)
    write_ometiff(tmp_path / "a.ome.tif", whole[None, None], spacing, ("RI",))
    tifffile.imwrite(tmp_path / "b.tif", whole, photometric="minisblack", compression="lzw", predictor=True)
    write_nifti(tmp_path / "c.nii.gz", (whole / np.float32(1e4)).astype(np.float32), spacing)
    write_omezarr(tmp_path / "d.ome.zarr", whole[None, None], spacing, ("RI",))
    about = {"axes": "ZYX", "unit": "micrometers", "spacing": -spacing[0]}
    per_um = (1 / spacing[2], 1 / spacing[1])
    tifffile.imwrite(tmp_path / "e.tif", whole, imagej=True, resolution=per_um, metadata=about)
    names = ["a.ome.tif", "b.tif", "c.nii.gz", "d.ome.zarr/0", "e.tif"]
    words = [
        "stages=[predict]", f"predict.inputs=[{','.join(f'{tmp_path}/{name}' for name in names)}]",
        f"predict.spacing_um=[{','.join(map(str, spacing))}]", f"predict.checkpoint={trained.run}",
        f"runs_dir={tmp_path}/runs",
    ]  # fmt: skip
    answer = cli(tiny, *words)
    assert answer.code == 0, answer.err
    found: dict[str, list[float]] = {}
    for row in rows(answer.run / "tables" / "predictions.csv"):
        found.setdefault(row["organelle"], []).append(float(row["volume_um3"]))
    assert all(len(volumes) == len(names) and len(set(volumes)) == 1 for volumes in found.values()), found
    refused = cli(tiny, *words, "predict.spacing_um=[0.3,0.3,0.3]")
    assert refused.code == 2
    assert "spacing_from: config" in refused.err
    forced = cli(tiny, *words, "predict.spacing_um=[0.3,0.3,0.3]", "predict.spacing_from=config")
    assert forced.code == 0, forced.err
    assert "note: a.ome.tif: voxel size (0.3, 0.3, 0.3) um of spacing_um instead of the file's" in forced.err
