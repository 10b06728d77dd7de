"""The search task: network architectures for organelle segmentation (ScNAS)."""
