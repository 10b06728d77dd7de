"""Networks by name: those of this package, and those that other packages add through entry points."""

import dataclasses
import inspect
from importlib.metadata import EntryPoint, entry_points
from typing import Protocol, cast

from torch import nn

from cytovox.errors import InputError
from cytovox.networks.residual_unet import ResidualUNetConfig
from cytovox.networks.scnas import ScNASConfig
from cytovox.options import nearest_name

#: Entry-point group in which an installed package adds networks: ``name = "module:ConfigClass"``.
GROUP = "cytovox.networks"


class NetworkConfig(Protocol):
    """Interface of a network's config: a dataclass of plain fields with defaults, and these four members.

    A config whose fields may name files also has the method `portable`, which returns the config with the content of
    these files instead of their names.
    """

    @property
    def divisor(self) -> tuple[int, int, int]:
        """Every axis (z, y, x) of the input must be a multiple of this."""

    @property
    def minimum(self) -> tuple[int, int, int]:
        """Every axis (z, y, x) of the input must be at least this long."""

    def errors(self, patch_ZYX: tuple[int, int, int] | None = None) -> list[str]:
        """Return what is wrong with the options, also for a patch of this size, one line per error."""

    def build(self, in_channels: int, out_channels: int) -> nn.Module:
        """Return the network, from (B, in_channels, Z, Y, X) to logits (B, out_channels, Z, Y, X).

        A network that is slower in ``channels_last_3d`` on a CPU in 16 bits has an attribute ``channels_last = False``.
        """


#: The networks of this package. Other packages cannot replace them.
NETWORKS: dict[str, type[NetworkConfig]] = {
    "residual_unet": ResidualUNetConfig,
    "scnas": ScNASConfig,
}


def network_names() -> list[str]:
    """Return all names of networks, those of this package first, without importing other packages."""
    return list(NETWORKS) + sorted(set(_added()) - set(NETWORKS))


def network_config(name: str) -> type[NetworkConfig]:
    """Return the config class of a network.

    Parameters
    ----------
    name : str
        One of `network_names`. The module of an entry point is imported only for its own name.

    Returns
    -------
    type
        A dataclass; see `NetworkConfig`.

    Raises
    ------
    InputError
        No network of that name, or an entry point that is not a config.
    """
    if name in NETWORKS:
        return NETWORKS[name]
    found = _added().get(name, [])
    if not found:
        raise InputError(f"network {name!r}: no such network; {nearest_name(name, network_names())}")
    if len(found) > 1:
        raise InputError(f"network {name!r}: added by several packages ({_origins(found)}): uninstall all but one")
    return _load(found[0])


def _added() -> dict[str, list[EntryPoint]]:
    """Return the entry points by name, without duplicates that refer to the same object."""
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
    except Exception as error:  # an error in another package, which the message has to name
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
