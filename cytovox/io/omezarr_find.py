"""Find an image in a Zarr hierarchy: a group, one of several images, a resolution level, or a plain array."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import zarr
from zarr.storage import LocalStore

from cytovox.errors import InputError
from cytovox.io.series import Series, choose_series

#: Attribute for metadata that OME-NGFF does not define.
OWN = "cytovox"

#: Largest number of groups that are searched for images.
_MOST_GROUPS = 10_000


@dataclass(frozen=True)
class ZarrImage:
    """One array of a hierarchy and its metadata.

    Attributes
    ----------
    node : str
        Path of the array inside the root.
    about : mapping
        Attributes of the image's group.
    multiscale : mapping or None
        The entry of `multiscales`; None for a plain array.
    dataset : mapping
        Its entry for the array.
    notes : tuple of str
        Notes for the user.
    """

    node: str
    about: Mapping[str, Any] = field(default_factory=dict)
    multiscale: Mapping[str, Any] | None = None
    dataset: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def axes(self) -> str:
        """One letter per axis; empty for a plain array."""
        return "".join(str(axis["name"]).lower() for axis in (self.multiscale or {}).get("axes", ()))


def zarr_root(path: Path) -> tuple[Path, str]:
    """Return the folder of a hierarchy and the path inside it: (`x.zarr`, `labels/nuclei`) of
    `x.zarr/labels/nuclei`."""
    for k, part in enumerate(path.parts[:-1], start=1):
        root = Path(*path.parts[:k])
        if part.lower().endswith(".zarr") and is_zarr(root):
            return root, "/".join(path.parts[k:])
    return path, ""


def is_zarr(path: Path) -> bool:
    """Return whether a folder is a Zarr group or array, of version 2 or 3."""
    return any((path / name).is_file() for name in ("zarr.json", ".zgroup", ".zattrs", ".zarray"))


def find_image(path: Path, store: LocalStore, inner: str, series: Series, accept_single: bool = False) -> ZarrImage:
    """Return the image at a path of a hierarchy, at full resolution; of several images the one of `series`.

    Raises
    ------
    InputError
        Nothing is at this path, it is no image, or it has several images and `series` is not given.
    """
    try:
        node = zarr.open(store=store, path=inner, mode="r")
    except (FileNotFoundError, KeyError, ValueError) as error:
        raise InputError(f"{path}: nothing of this name in the Zarr ({error})") from error
    if isinstance(node, zarr.Array):
        return _of_array(store, inner)
    about = _ome(node.attrs.asdict())
    if about.get("multiscales"):
        return _of_group(path, inner, about, series, accept_single)
    found = _images_below(node, about)
    if not found:
        arrays = sorted(name for name, _ in node.arrays())
        more = f"; arrays in it: {', '.join(arrays[:10])}, each of which can be opened by itself" if arrays else ""
        raise InputError(f"{path}: no OME-NGFF metadata (multiscales with axes): expected version 0.4 or 0.5{more}")
    # their names are their paths, which a user can also write
    titles = [str(_ome(group.attrs.asdict())["multiscales"][0].get("name") or "") for _, group in found]
    number = choose_series(path, [(place, _about(group)) for place, group in found], series, titles, accept_single)
    place, group = found[number]
    return _of_group(path, f"{inner}/{place}".strip("/"), _ome(group.attrs.asdict()), None)


def _of_group(
    path: Path, inner: str, about: Mapping[str, Any], series: Series, accept_single: bool = False
) -> ZarrImage:
    """Return the first level of an image, which has full resolution; of several images the one of `series`."""
    images = about["multiscales"]
    found = [(str(image.get("name") or ""), f"{len(image.get('datasets', ()))} levels") for image in images]
    image = images[choose_series(path, found, series, accept_single=accept_single)]
    if not image.get("axes"):
        raise InputError(f"{path}: no OME-NGFF metadata (multiscales with axes): expected version 0.4 or 0.5")
    dataset = image["datasets"][0]
    return ZarrImage(f"{inner}/{dataset['path']}".strip("/"), about, image, dataset)


def _of_array(store: LocalStore, inner: str) -> ZarrImage:
    """Return an array with the metadata of the group of which it is a resolution level."""
    parts = inner.split("/") if inner else []
    for k in range(len(parts) - 1, -1, -1):
        try:
            group = zarr.open_group(store=store, path="/".join(parts[:k]), mode="r")
        except (FileNotFoundError, KeyError, ValueError):
            continue
        about = _ome(group.attrs.asdict())
        for image in about.get("multiscales") or ():
            for number, dataset in enumerate(image.get("datasets", ())):
                if str(dataset["path"]).strip("/") == "/".join(parts[k:]) and image.get("axes"):
                    note = f"{inner}: level {number} of the image, {number} levels below full resolution"
                    return ZarrImage(inner, about, image, dataset, (note,) if number else ())
    return ZarrImage(inner)


def _images_below(group: zarr.Group, about: Mapping[str, Any]) -> list[tuple[str, zarr.Group]]:
    """Return (path, group) of all images that a group lists: a plate, a well, labels, or files of bioformats2raw."""
    if "plate" in about:
        wells = [str(well["path"]) for well in about["plate"].get("wells", ())]
        places = [f"{well}/{image['path']}" for well in wells for image in _ome(_attrs(group, well))["well"]["images"]]
    elif "well" in about:
        places = [str(image["path"]) for image in about["well"].get("images", ())]
    elif "labels" in about:
        places = [str(name) for name in about["labels"]]
    elif "series" in about:
        places = [str(name) for name in about["series"]]
    else:
        names = [name for _, (name, _) in zip(range(_MOST_GROUPS), group.groups(), strict=False) if name != "OME"]
        places = sorted(names, key=lambda name: (not name.isdecimal(), int(name) if name.isdecimal() else 0, name))
    found = []
    for place in places:
        child = group.get(place)
        if isinstance(child, zarr.Group) and _ome(child.attrs.asdict()).get("multiscales"):
            found.append((place, child))
    return found


def _attrs(group: zarr.Group, place: str) -> dict[str, Any]:
    child = group[place]
    return dict(child.attrs.asdict())


def _about(group: zarr.Group) -> str:
    image = _ome(group.attrs.asdict())["multiscales"][0]
    array = group.get(str(image["datasets"][0]["path"]))
    shape = "x".join(map(str, array.shape)) if isinstance(array, zarr.Array) else "no voxels"
    return f"{image['name']}, {shape}" if image.get("name") else shape


def _ome(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Return the metadata of OME-NGFF and of Cytovox; OME-NGFF 0.5 has its own under "ome", 0.4 at the top level."""
    ome = attributes.get("ome", attributes)
    return {**ome, OWN: attributes.get(OWN) or {}}
