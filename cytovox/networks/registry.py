"""Which networks there are, by name: a dict, and what other packages add to it through entry points."""

import dataclasses
import difflib
import inspect
from importlib.metadata import EntryPoint, entry_points
from typing import Protocol, cast

from torch import nn

from cytovox.errors import InputError
from cytovox.networks.residual_unet import ResidualUNetConfig
from cytovox.networks.scnas import ScNASConfig

#: Entry-point group by which an installed package adds networks: ``name = "module:ConfigClass"``.
GROUP = "cytovox.networks"


class NetworkConfig(Protocol):
    """What a network's config offers: a dataclass of plain fields, all with defaults, and these four.

    One whose fields may name files has a fifth, `portable`, which gives the same config with their content instead.
    """

    @property
    def divisor(self) -> tuple[int, int, int]:
        """Every axis (z, y, x) of the input must be a multiple of this."""

    @property
    def minimum(self) -> tuple[int, int, int]:
        """Every axis (z, y, x) of the input must be at least this long."""

    def errors(self, patch_ZYX: tuple[int, int, int] | None = None) -> list[str]:
        """What is wrong with the options, and with a patch of this size; empty where all is well."""

    def build(self, in_channels: int, out_channels: int) -> nn.Module:
        """The network: (B, in_channels, Z, Y, X) to logits (B, out_channels, Z, Y, X).

        One that is slower on a CPU in ``channels_last_3d`` when computed in 16 bits says so: ``channels_last = False``.
        """


#: The networks of this package. A built-in name cannot be taken over by another package.
NETWORKS: dict[str, type[NetworkConfig]] = {
    "residual_unet": ResidualUNetConfig,
    "scnas": ScNASConfig,
}


def network_names() -> list[str]:
    """All names that `network_config` knows, built-in ones first. Imports no other package."""
    return list(NETWORKS) + sorted(set(_added()) - set(NETWORKS))


def network_config(name: str) -> type[NetworkConfig]:
    """The config class of a network.

    Parameters
    ----------
    name : str
        One of `network_names`. The module of an entry point is imported only when its name is asked for.

    Returns
    -------
    type
        A dataclass; see `NetworkConfig`.

    Raises
    ------
    InputError
        No network of that name, or an installed package offers something that is no config.
    """
    if name in NETWORKS:
        return NETWORKS[name]
    found = _added().get(name, [])
    if not found:
        names = network_names()
        near = difflib.get_close_matches(str(name), names, n=1, cutoff=0.4)
        hint = f"did you mean {near[0]}? " if near else ""
        raise InputError(f"network {name!r}: no such network; {hint}known: {', '.join(names)}")
    if len(found) > 1:
        raise InputError(f"network {name!r}: offered by several packages ({_origins(found)}): uninstall all but one")
    return _load(found[0])


def _added() -> dict[str, list[EntryPoint]]:
    """Entry points by name; one list entry a package, whatever it calls the same object."""
    added: dict[str, list[EntryPoint]] = {}
    for entry in entry_points(group=GROUP):
        same = added.setdefault(entry.name, [])
        if entry.value not in [other.value for other in same]:
            same.append(entry)
    return added


def _origins(entries: list[EntryPoint]) -> str:
    return ", ".join(f"{entry.dist.name if entry.dist else 'unknown package'}: {entry.value}" for entry in entries)


def _load(entry: EntryPoint) -> type[NetworkConfig]:
    where = f"network {entry.name!r} ({_origins([entry])})"
    try:
        config = entry.load()
    except Exception as error:  # whatever another package does on import is not our bug, and the user must know whose
        raise InputError(
            f"{where}: could not be imported ({type(error).__name__}: {error}): repair or uninstall that package"
        ) from error
    if not (inspect.isclass(config) and dataclasses.is_dataclass(config)):
        raise InputError(
            f"{where}: expected a dataclass with build and errors, got {config!r}: see cytovox.networks.registry"
        )
    missing = [part for part in ("divisor", "minimum", "errors", "build") if not hasattr(config, part)]
    missing += [
        f"a default for {field.name}"
        for field in dataclasses.fields(config)
        if field.init and field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
    ]
    if missing:
        raise InputError(
            f"{where}: {config.__name__} lacks {', '.join(missing)}: see cytovox.networks.registry.NetworkConfig"
        )
    return cast(type[NetworkConfig], config)
