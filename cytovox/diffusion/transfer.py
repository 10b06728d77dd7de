"""Asynchronous copies from the host to a device."""

import torch


def upload(tensor: torch.Tensor, device: torch.device, dtype: torch.dtype | None = None) -> torch.Tensor:
    """Return a copy of a tensor on a device, without waiting for running computations of the device.

    Parameters
    ----------
    tensor : tensor
        Tensor on the CPU or on the device. Do not write to it afterwards: the copy may not have begun.
    device : torch.device
        Device of the copy.
    dtype : torch.dtype, optional
        Type of the copy; the tensor's type by default.

    Returns
    -------
    tensor
        The tensor itself if it already has this device and type.
    """
    if dtype is not None and tensor.device.type == "cpu":
        tensor = tensor.to(dtype)
    if device.type == "cuda" and tensor.device.type == "cpu":
        tensor = tensor.pin_memory()  # copies from pageable memory block the host
    return tensor.to(device=device, dtype=dtype, non_blocking=True)
