"""What is learned: plain ``torch.nn`` modules, mostly MONAI's, each found by name through its small config."""

from cytovox.networks.registry import NETWORKS, NetworkConfig, network_config, network_names

__all__ = ["NETWORKS", "NetworkConfig", "network_config", "network_names"]
