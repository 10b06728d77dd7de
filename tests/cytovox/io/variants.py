"""Files as users really have them, each with what must be read from it, or the reason it must be refused with."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import tifffile
import zarr

#: Of every tomogram here: one droplet of 4 x 5 x 6 voxels in a medium, placed so that a flip or a swap shows.
SHAPE = (8, 12, 15)
SPACING = (0.5, 0.25, 0.2)
BOX = (slice(1, 5), slice(2, 7), slice(3, 9))
DROP_VOXELS = 4 * 5 * 6
DROP_UM3 = DROP_VOXELS * 0.5 * 0.25 * 0.2
MEDIUM_RI, DROP_RI = 1.337, 1.452

XY = {"resolution": (1 / 0.2, 1 / 0.25)}
GREY: dict[str, Any] = {"photometric": "minisblack"}


def ri(scale: float = 1.0, dtype: Any = np.float32) -> np.ndarray:
    """The tomogram, times a scale."""
    values = np.full(SHAPE, MEDIUM_RI)
    values[BOX] = DROP_RI
    return (values * scale if scale == 1 else np.rint(values * scale)).astype(dtype)


@dataclass(frozen=True)
class Variant:
    """One kind of file."""

    name: str
    make: Callable[[Path], object]
    """Writes it at a path; returns the path to read, or None for the same."""
    refused: str = ""
    """Regular expression of the reason; empty where it is read."""
    note: str = ""
    """Regular expression of one of the notes; empty where there must be none."""
    read: dict[str, Any] = field(default_factory=dict)
    """How it is read."""
    shape: tuple[int, ...] = (1, 1, *SHAPE)
    spacing: tuple[float, float, float] = SPACING
    rtol: float = 1e-6
    """Of the values."""


def _ome(path: Path, data: np.ndarray, axes: str, unit: str = "\u00b5m", sizes: Any = SPACING, **more: Any) -> None:
    about: dict[str, Any] = {"axes": axes}
    for axis, size in zip("ZYX", sizes, strict=True):
        if size is not None:
            about |= {f"PhysicalSize{axis}": size, f"PhysicalSize{axis}Unit": unit}
    about |= more.pop("about", {})
    tifffile.imwrite(path, data, ome=True, metadata=about, **GREY, **more)


def ome(axes: str = "ZYX", data: np.ndarray | None = None, **more: Any) -> Callable[[Path], None]:
    return lambda path: _ome(path, ri() if data is None else data, axes, **more)


def imagej(
    data: np.ndarray | None = None, unit: str = "micron", spacing: float | None = 0.5, **about: Any
) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        values = ri() if data is None else data
        metadata = {"axes": "ZYX", "unit": unit, **({} if spacing is None else {"spacing": spacing}), **about}
        tifffile.imwrite(path, values, imagej=True, metadata=metadata, **XY)

    return write


def plain(data: np.ndarray | None = None, **more: Any) -> Callable[[Path], None]:
    return lambda path: tifffile.imwrite(path, ri() if data is None else data, **{**GREY, "metadata": None, **more})


def nifti(
    sizes: Any = (0.2, 0.25, 0.5), unit: str | None = "micron", form: str = "sq", data: np.ndarray | None = None,
    kind: type = nib.Nifti1Image, sform: np.ndarray | None = None, axes: Any = (-1, -1, 1), change: Any = None,
) -> Callable[[Path], None]:  # fmt: skip
    """x, y, z first; sizes and their unit as the header has them."""

    def write(path: Path) -> None:
        values = (ri() if data is None else data).T
        affine = np.diag([*(a * s for a, s in zip(axes, sizes, strict=True)), 1.0])
        image = kind(values, affine)
        image.header.set_xyzt_units(unit)
        image.header["sform_code"] = image.header["qform_code"] = 0
        if "s" in form:
            image.header.set_sform(affine if sform is None else sform, code=1)
        if "q" in form:
            image.header.set_qform(affine, code=1)
        else:
            image.header.set_zooms((*sizes, *[1.0] * (values.ndim - 3)))
        if change is not None:
            change(image)
        image._affine = image.header.get_best_affine()  # what is saved is what the header says
        nib.save(image, path)

    return write


def ngff(
    scale: Any = SPACING, unit: str | None = "micrometer", version: str = "0.4", data: np.ndarray | None = None,
    axes: str = "zyx", inner: str = "", name: str = "cell", time: str | None = "second", **more: Any,
) -> Callable[[Path], Path]:  # fmt: skip
    def write(path: Path) -> Path:
        values = ri() if data is None else data
        group = zarr.create_group(path / inner if inner else path, zarr_format=3 if version == "0.5" else 2)
        group.create_array("0", data=values, **more)
        group.create_array("1", data=values[..., ::2, ::2])
        spaces = {"t": {"type": "time", **({"unit": time} if time else {})}, "c": {"type": "channel"}}
        space = {"type": "space", **({"unit": unit} if unit else {})}
        full = [1.0] * (len(axes) - 3) + list(scale)
        half = [*full[:-2], 2 * full[-2], 2 * full[-1]]
        image = {
            "name": name,
            "axes": [{"name": a, **spaces.get(a, space)} for a in axes],
            "datasets": [
                {"path": str(k), "coordinateTransformations": [{"type": "scale", "scale": s}]}
                for k, s in enumerate((full, half))
            ],
        }
        if version == "0.5":
            group.attrs["ome"] = {"version": "0.5", "multiscales": [image]}
        else:
            group.attrs["multiscales"] = [{"version": "0.4", **image}]
        return path

    return write


def _below(write: Callable[[Path], Path], inner: str) -> Callable[[Path], Path]:
    return lambda path: write(path) / inner


def _two_images(path: Path) -> None:
    with tifffile.TiffWriter(path, ome=True) as tiff:
        for name, values in (("before", ri() + 0.01), ("after", ri())):
            about = {"axes": "ZYX", "Name": name}
            for axis, size in zip("ZYX", SPACING, strict=True):
                about |= {f"PhysicalSize{axis}": size}  # type: ignore[dict-item]
            tiff.write(values, metadata=about, **GREY)


def _pages_of_two_sizes(path: Path) -> None:
    with tifffile.TiffWriter(path) as tiff:
        tiff.write(ri(), metadata=None, **GREY)
        tiff.write(ri()[:, :7, :9] + 0.01, metadata=None, **GREY)


def _pyramid(path: Path) -> None:
    with tifffile.TiffWriter(path, ome=True) as tiff:
        about = {"axes": "ZYX", **{f"PhysicalSize{a}": s for a, s in zip("ZYX", SPACING, strict=True)}}
        tiff.write(ri(), subifds=1, metadata=about, **GREY)
        tiff.write(ri()[:, ::2, ::2], subfiletype=1, **GREY)


def _flat_pyramid(path: Path) -> None:
    with tifffile.TiffWriter(path) as tiff:
        tiff.write(ri(), metadata=None, **GREY)
        tiff.write(ri()[:, ::2, ::2], metadata=None, **GREY)


def _set(path: Path, leave_out: int | None = None, own_uuid: bool = True) -> Path:
    """One file a frame, each with the XML of the whole set, as Bio-Formats writes it."""
    names = [f"{path.stem}_{t}.ome.tif" for t in range(3)]
    uuids = [f"urn:uuid:00000000-0000-0000-0000-00000000000{t}" for t in range(3)]
    z, y, x = SHAPE
    planes = "".join(
        f'<TiffData FirstT="{t}" FirstZ="{k}" FirstC="0" IFD="{k}" PlaneCount="1">'
        f'<UUID FileName="{names[t]}">{uuids[t]}</UUID></TiffData>'
        for t in range(3)
        for k in range(z)
    )
    for t in range(3):
        head = f' UUID="{uuids[t]}"' if own_uuid else ""
        text = (
            f'<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"{head}><Image ID="Image:0" Name="set">'
            f'<Pixels ID="Pixels:0" DimensionOrder="XYZCT" Type="float" SizeX="{x}" SizeY="{y}" SizeZ="{z}" SizeC="1" '
            'SizeT="3" PhysicalSizeX="0.2" PhysicalSizeY="0.25" PhysicalSizeZ="0.5" TimeIncrement="60">'
            f'<Channel ID="Channel:0:0" SamplesPerPixel="1"/>{planes}</Pixels></Image></OME>'
        )
        if t != leave_out:
            values = ri() + np.float32(0.001 * t)
            tifffile.imwrite(path.parent / names[t], values, description=text, metadata=None, **GREY)
    return path.parent / names[1 if leave_out == 0 else 0]


def _part_of_a_set(path: Path) -> None:
    text = (
        '<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"><BinaryOnly MetadataFile="all.companion.ome" '
        'UUID="urn:uuid:0"/></OME>'
    )
    tifffile.imwrite(path, ri(), description=text, metadata=None, **GREY)


def _collection(path: Path) -> Path:
    for k, values in enumerate((ri() + 0.01, ri())):
        ngff(data=values, inner=str(k), name=f"position {k}")(path)
    zarr.open_group(path, mode="a", zarr_format=2).attrs["bioformats2raw.layout"] = 3
    return path


def _plate(path: Path) -> Path:
    for well, values in (("A/1", ri() + 0.01), ("B/2", ri())):
        ngff(data=values, inner=f"{well}/0")(path)
        group = zarr.open_group(path / well, mode="a", zarr_format=2)
        group.attrs["well"] = {"images": [{"path": "0"}]}
    zarr.open_group(path / "A", mode="a", zarr_format=2)
    zarr.open_group(path / "B", mode="a", zarr_format=2)
    root = zarr.open_group(path, mode="a", zarr_format=2)
    root.attrs["plate"] = {"wells": [{"path": "A/1"}, {"path": "B/2"}]}
    return path


def _two_multiscales(path: Path) -> Path:
    ngff()(path)
    group = zarr.open_group(path, mode="a")
    image = dict(group.attrs["multiscales"][0])  # type: ignore[index, arg-type, call-overload]
    group.create_array("other", data=ri() + 0.01)
    other = {**image, "name": "raw", "datasets": [{**image["datasets"][0], "path": "other"}]}
    group.attrs["multiscales"] = [other, image]
    return path


def _array(path: Path, data: np.ndarray | None = None, **more: Any) -> Path:
    zarr.create_array(path, data=ri() if data is None else data, **more)
    return path


def _with_labels(path: Path) -> Path:
    ngff(data=np.zeros(SHAPE, np.float32))(path)
    ngff(inner="labels/nuclei")(path)
    zarr.open_group(path / "labels", mode="a", zarr_format=2).attrs["labels"] = ["nuclei"]
    return path / "labels" / "nuclei"


def _identity_beside_qform(image: Any) -> None:
    image.header.set_sform(np.eye(4), code=2)


def _other_zooms(image: Any) -> None:
    image.header["pixdim"][1:4] = (0.4, 0.5, 1.0)


def _slope(image: Any) -> None:
    image.header.set_slope_inter(1e-4, 0.5)


def _lying(path: Path) -> None:
    """A small file whose header asks for 10^14 bytes."""
    nifti()(path.with_name("true.nii"))
    content = bytearray(path.with_name("true.nii").read_bytes())
    content[42:48] = np.array([30_000] * 3, "<i2").tobytes()
    path.write_bytes(gzip.compress(bytes(content)) if path.suffix == ".gz" else bytes(content))


def _lying_zarr(path: Path, axes: str = "zyx", **array: Any) -> None:
    """No chunk is there: all voxels are the fill value."""
    about = {"axes": [{"name": a, "unit": "second" if a == "t" else "micrometer"} for a in axes], "version": "0.4"}
    scale = [*[1.0] * (len(axes) - 3), *SPACING]
    level = {"path": "0", "coordinateTransformations": [{"type": "scale", "scale": scale}]}
    group = zarr.create_group(path, zarr_format=2)
    group.create_array("0", dtype="f4", fill_value=1.34, **array)
    group.attrs["multiscales"] = [{**about, "datasets": [level]}]


def _many_planes(path: Path) -> None:
    z, y, x = SHAPE
    text = (
        '<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"><Image ID="Image:0"><Pixels ID="Pixels:0" '
        f'DimensionOrder="XYZCT" Type="float" SizeX="{x}" SizeY="{y}" SizeZ="8" SizeC="1" SizeT="2000000000">'
        '<Channel ID="Channel:0:0" SamplesPerPixel="1"/><TiffData/></Pixels></Image></OME>'
    )
    tifffile.imwrite(path, ri(), description=text, metadata=None, **GREY)


def _hdr(path: Path) -> Path:
    nifti(kind=nib.Nifti1Pair)(path.with_suffix(".img"))
    return path.with_suffix(".hdr")


rgb = np.repeat(ri(1e4, np.uint16)[..., None], 3, axis=-1)
tinted = rgb.copy()
tinted[2, 3, 4, 0] += 1
rgba = np.concatenate([rgb, np.full((*SHAPE, 1), 65535, np.uint16)], axis=-1)
unequal = np.random.default_rng(0).uniform(1.33, 1.4, (3, *SHAPE)).astype(np.float32)

GIVEN = {"spacing_um": SPACING}
BY_CONFIG = {"spacing_um": SPACING, "spacing_from": "config"}

VARIANTS = [
    # how TIFF may be stored
    Variant("ome.ome.tif", ome()),
    Variant("big_endian.ome.tif", ome(byteorder=">")),
    Variant("bigtiff.ome.tif", ome(bigtiff=True)),
    Variant("tiled.ome.tif", ome(tile=(16, 16))),
    Variant("lzw.ome.tif", ome(compression="lzw")),
    Variant("lzw_predictor.ome.tif", ome(compression="lzw", predictor=True, data=ri(1e4, np.uint16))),
    Variant("zip_float_predictor.ome.tif", ome(compression="zlib", predictor=True)),
    Variant("zstd.ome.tif", ome(compression="zstd")),
    Variant("jpeg2000.ome.tif", ome(compression="jpeg2000", data=ri(1e4, np.uint16))),
    Variant("lzma.ome.tif", ome(compression="lzma")),
    Variant("packbits.ome.tif", ome(compression="packbits")),
    Variant("float16.tif", plain(ri(1, np.float16)), read=GIVEN, rtol=1e-3),
    Variant("float64.ome.tif", ome(data=ri(1, np.float64))),
    Variant("int32.ome.tif", ome(data=ri(1e4, np.int32))),
    Variant("pyramid.ome.tif", _pyramid),
    Variant("flat_pyramid.tif", _flat_pyramid, read=GIVEN),
    # units of TIFF
    Variant("greek_mu.ome.tif", ome(unit="\u03bcm")),
    Variant("nm.ome.tif", ome(unit="nm", sizes=(500, 250, 200))),
    Variant("mm.ome.tif", ome(unit="mm", sizes=(0.0005, 0.00025, 0.0002))),
    Variant("angstrom.ome.tif", ome(unit="\u00c5", sizes=(5000, 2500, 2000))),
    Variant("metres.ome.tif", ome(unit="m", sizes=(5e-7, 2.5e-7, 2e-7))),
    Variant("pixel.ome.tif", ome(unit="pixel"), refused="states no voxel size"),
    Variant("pixel_given.ome.tif", ome(unit="pixel"), read=GIVEN),
    Variant("no_z.ome.tif", ome(sizes=(None, 0.25, 0.2)), refused="no voxel size along z"),
    Variant("no_z_given.ome.tif", ome(sizes=(None, 0.25, 0.2)), read=GIVEN),
    Variant("um_as_mm.ome.tif", ome(unit="mm"), refused="um written as mm"),
    Variant("implausible.ome.tif", ome(sizes=(50, 0.25, 0.2)), refused="expected 0.02 to 5 um"),
    Variant("needle.ome.tif", ome(sizes=(5, 0.2, 0.2)), refused="differ by a factor of 20"),
    Variant(
        "differs.ome.tif", ome(sizes=(0.4, 0.25, 0.2)), read=GIVEN, refused=r"\(0.4, 0.25, 0.2\).*\(0.5, 0.25, 0.2\)"
    ),
    Variant("by_config.ome.tif", ome(sizes=(0.4, 0.25, 0.2)), read=BY_CONFIG, note=r"instead of the file's \(0.4"),
    Variant("imagej.tif", imagej()),
    Variant("imagej_microns.tif", imagej(unit="microns")),
    Variant("imagej_escaped.tif", imagej(unit="\\u00B5m")),
    Variant("imagej_micrometers.tif", imagej(unit="micrometers")),
    Variant("imagej_depth.tif", imagej(spacing=-0.5)),
    Variant("imagej_zunit.tif", imagej(spacing=500.0, zunit="nm")),
    Variant("imagej_yunit.tif", imagej(yunit="mm"), refused="expected 0.02 to 5 um"),
    Variant("imagej_no_depth.tif", imagej(spacing=None), refused="no voxel size along z"),
    Variant("imagej_pixel.tif", imagej(unit="pixel"), refused="states no voxel size"),
    Variant("tifffile_json.tif", plain(metadata={"axes": "ZYX", "spacing": 0.5, "unit": "um"}, **XY)),
    Variant("plain.tif", plain(), refused="states no voxel size"),
    Variant("plain_given.tif", plain(), read=GIVEN),
    Variant("screen_dpi.tif", plain(resolution=(72, 72), resolutionunit="INCH"), read=GIVEN),
    Variant("cm_tags.tif", plain(resolution=(50_000, 40_000), resolutionunit="CENTIMETER"), refused="along z"),
    Variant("cm_tags_given.tif", plain(resolution=(50_000, 40_000), resolutionunit="CENTIMETER"), read=GIVEN),
    Variant(
        "cm_tags_differ.tif",
        plain(resolution=(5e4, 5e4), resolutionunit="CENTIMETER"),
        read=GIVEN,
        refused="own spacing",
    ),
    Variant("given_nm.tif", plain(), read={"spacing_um": (500, 250, 200)}, refused="is its unit um"),
    # channels, frames, images
    Variant("slices_as_channels.ome.tif", ome("CYX", sizes=SPACING), note="8 unnamed channels .* as slices"),
    Variant("slices_as_frames.ome.tif", ome("TYX"), refused="8 frames of one slice each"),
    Variant("imagej_frames.tif", imagej(axes="TYX"), refused="8 frames of one slice each"),
    Variant("singletons.ome.tif", ome("TCZYX", data=ri()[None, None])),
    Variant("channel_named.ome.tif", ome(about={"Channel": {"Name": "Tomogram"}})),
    Variant("channel_dapi.ome.tif", ome(about={"Channel": {"Name": "DAPI"}}), note="its only channel, DAPI"),
    Variant("grey_rgb.tif", plain(rgb, photometric="rgb"), read=GIVEN, note="grey colour image"),
    Variant(
        "grey_rgba.tif", plain(rgba, photometric="rgb", extrasamples=["unassalpha"]), read=GIVEN, note="grey colour"
    ),
    Variant("colour.tif", plain(tinted, photometric="rgb"), read=GIVEN, refused="colours differ"),
    Variant("two_images.ome.tif", _two_images, refused=r"2 images: .*series: 0 \(before, .*1 \(after"),
    Variant("two_images_0.ome.tif", _two_images, read={"series": "after"}),
    Variant("two_images_1.ome.tif", _two_images, read={"series": 1}),
    Variant("two_images_2.ome.tif", _two_images, read={"series": 2}, refused="no such image"),
    Variant("two_images_n.ome.tif", _two_images, read={"series": "during"}, refused="no such image"),
    Variant("two_sizes.tif", _pages_of_two_sizes, read=GIVEN, refused="holds 2 images"),
    Variant("two_sizes_0.tif", _pages_of_two_sizes, read=GIVEN | {"series": 0}),
    Variant("set.ome.tif", _set, shape=(3, 1, *SHAPE)),
    Variant("set_without_uuid.ome.tif", lambda path: _set(path, own_uuid=False), shape=(3, 1, *SHAPE)),
    Variant("set_incomplete.ome.tif", lambda path: _set(path, leave_out=2), refused=r"_2\.ome\.tif is not there"),
    Variant("set_part.ome.tif", _part_of_a_set, refused=r"all\.companion\.ome describes"),
    # values
    Variant("x10000.tif", plain(ri(1e4, np.uint16)), read=GIVEN),
    Variant("x1000.tif", plain(ri(1e3, np.uint16)), read=GIVEN),
    Variant("x10000_float.tif", plain(ri(1e4)), read=GIVEN),
    Variant("x1000_float.tif", plain(ri(1e3)), read=GIVEN),
    Variant("complex.tif", plain(ri().astype(np.complex64)), read=GIVEN, refused="voxels of type complex64"),
    # NIfTI
    Variant("micron.nii.gz", nifti()),
    Variant("mm.nii", nifti(sizes=(0.0002, 0.00025, 0.0005), unit="mm")),
    Variant("metres.nii", nifti(sizes=(2e-7, 2.5e-7, 5e-7), unit="meter")),
    Variant("um_as_mm.nii", nifti(unit="mm"), refused="um written as mm"),
    Variant("um_as_mm_config.nii", nifti(unit="mm"), read=BY_CONFIG, note="instead of the file's"),
    Variant("no_unit_um.nii", nifti(unit="unknown"), note="read as um: the file names no unit"),
    Variant("no_unit_mm.nii", nifti((0.0002, 0.00025, 0.0005), unit="unknown"), note="read as mm: the file names no"),
    Variant("identity.nii", nifti(change=_identity_beside_qform), note="qform, as the sform is the identity"),
    Variant("sform_differs.nii", nifti(form="s", change=_other_zooms), refused="two voxel sizes"),
    Variant(
        "sform_differs_given.nii", nifti(form="s", change=_other_zooms), read=GIVEN, note="spacing_um says the same"
    ),
    Variant("pixdim_only.nii", nifti(form="")),
    Variant("qform_only.nii", nifti(form="q")),
    Variant("ones.nii", nifti((1, 1, 1), unit="mm"), refused="states no voxel size"),
    Variant("ones_given.nii", nifti((1, 1, 1), unit="mm"), read=GIVEN),
    Variant("flipped.nii", nifti(axes=(1, 1, -1), data=ri()[::-1, ::-1, ::-1]), note="its header mirrors x, y, z"),
    Variant("flipped_y.nii", nifti(axes=(-1, 1, 1), data=ri()[:, ::-1]), note="its header mirrors y against"),
    Variant("ones_as_nibabel.nii", nifti((1, 1, 1), unit="mm", axes=(1, 1, 1)), read=GIVEN),
    Variant(
        "oblique.nii",
        nifti(form="s", sform=np.array([[-0.18, 0.1, 0, 0], [-0.1, -0.22, 0, 0], [0, 0, 0.5, 0], [0, 0, 0, 1]])),
        refused="rotated",
    ),
    Variant("turned.nii", nifti(sform=np.diag([0.2, 0.25, 0.5, 1])), refused="lay the axes differently"),
    Variant("slope.nii", nifti(data=ri(1e4, np.int16) - np.int16(5000), change=_slope), rtol=1e-4),
    Variant("pair.hdr", _hdr),
    # headers that ask for more than there is
    Variant("lying.nii.gz", _lying, refused="header is wrong"),
    Variant("lying.nii", _lying, refused="truncated"),
    Variant("lying.zarr", lambda path: _lying_zarr(path, shape=(10**5,) * 3, chunks=(64,) * 3), refused="GB of memory"),
    Variant("chunks.zarr", lambda p: _lying_zarr(p, shape=(8, 8, 8), chunks=(10**5,) * 3), refused="GB of memory"),
    Variant(
        "frames_lie.zarr",
        lambda p: _lying_zarr(p, "tzyx", shape=(10**12, 2, 2, 2), chunks=(1, 2, 2, 2)),
        refused="states 10",
    ),
    Variant("planes.ome.tif", _many_planes, refused="states 16000000000 planes"),
    # OME-Zarr
    Variant("v04.zarr", ngff()),
    Variant("v05.ome.zarr", ngff(version="0.5")),
    Variant("nm.zarr", ngff((500, 250, 200), "nanometer")),
    Variant("no_unit.zarr", ngff(unit=None), note="its scale read as um: the file names no unit"),
    Variant("no_unit_nm.zarr", ngff((500, 250, 200), None), note="read as nm"),
    Variant("ones.zarr", ngff((1, 1, 1), None), refused="states no voxel size"),
    Variant("x10000.zarr", ngff(data=ri(1e4, np.uint16))),
    Variant("singletons.zarr", ngff(data=ri()[None, None], axes="tczyx")),
    Variant("frames.zarr", ngff(data=ri()[:, None], axes="tzyx", time=None), refused="8 frames of one slice each"),
    Variant("level_0.zarr", _below(ngff(), "0")),
    Variant("level_1.zarr", _below(ngff(), "1"), note="level 1", spacing=(0.5, 0.5, 0.4), shape=(1, 1, 8, 6, 8)),
    Variant("labels.zarr", _with_labels),
    Variant("collection.zarr", _collection, refused=r"2 images: .*0 \(0, .*1 \(1,"),
    Variant("collection_1.zarr", _collection, read={"series": 1}),
    Variant("collection_name.zarr", _collection, read={"series": "position 1"}),
    Variant("collection_path.zarr", _below(_collection, "1")),
    Variant("plate.zarr", _plate, refused="A/1/0"),
    Variant("plate_B.zarr", _plate, read={"series": "B/2/0"}),
    Variant("two_multiscales.zarr", _two_multiscales, refused=r"raw.*cell"),
    Variant("two_multiscales_cell.zarr", _two_multiscales, read={"series": "cell"}),
    Variant("array.zarr", _array, refused="states no voxel size"),
    Variant("array_given.zarr", _array, read=GIVEN),
    Variant("array_4d.zarr", lambda path: _array(path, unequal), read=GIVEN, refused="without OME-NGFF metadata"),
]
