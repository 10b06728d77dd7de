"""Networks: plain ``torch.nn`` modules, mostly MONAI's, each with a config that is found by name."""

from cytovox.networks.registry import NETWORKS, NetworkConfig, network_config, network_names

__all__ = ["NETWORKS", "NetworkConfig", "network_config", "network_names"]
