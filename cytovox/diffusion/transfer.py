"""Copies from the host to a device that do not wait for the device."""

import torch


def upload(tensor: torch.Tensor, device: torch.device, dtype: torch.dtype | None = None) -> torch.Tensor:
    """Copy a tensor to a device without waiting for what the device still computes.

    Parameters
    ----------
    tensor : tensor
        On the CPU, or on the device already, where nothing is copied. It must not be written to afterwards: the copy
        may not have begun.
    device : torch.device
        Where the copy lies.
    dtype : torch.dtype, optional
        Of the copy; the tensor's own by default.

    Returns
    -------
    tensor
        On the device. The tensor itself where device and dtype are its own.
    """
    if dtype is not None and tensor.device.type == "cpu":
        tensor = tensor.to(dtype)
    if device.type == "cuda" and tensor.device.type == "cpu":
        tensor = tensor.pin_memory()  # a copy from pageable memory makes the host wait
    return tensor.to(device=device, dtype=dtype, non_blocking=True)
