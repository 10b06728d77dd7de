"""Search task: network architectures for organelle segmentation (ScNAS)."""
