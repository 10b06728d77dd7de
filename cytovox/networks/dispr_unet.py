"""The published U-Net of DISPR: that of guided-diffusion in 3D, without downsampling along z.

Its input is x_t, the mask and the masked image. The 2D inputs are repeated along z, so that the input does not show the
depth of the imaged slice. Attention with one head over all voxels is used at a quarter of the resolution in y and x
(16,384 voxels at 64x64x64) and at the coarsest level.

References
----------
Waibel et al., A diffusion model predicts 3D shapes from 2D microscopy images, ISBI 2023, arXiv 2208.14125.
Dhariwal & Nichol, Diffusion models beat GANs on image synthesis, NeurIPS 2021, arXiv 2105.05233 (the U-Net).
"""

from dataclasses import dataclass, field

import torch
from monai.networks.nets.diffusion_model_unet import DiffusionUNetResnetBlock, get_timestep_embedding, zero_module
from torch import nn
from torch.nn import functional as F

from cytovox.networks.sizes import check_size
from cytovox.options import option_errors, raise_errors

#: Groups and epsilon of every normalisation.
GROUPS, EPSILON = 32, 1e-5
#: Side of the images in pixels.
SIDE = 64


@dataclass
class DISPRUNetConfig:
    """Options of `DISPRUNet`. The defaults are the published ones: 9.77 M parameters."""

    base_channels: int = 32
    """Feature maps at full resolution, a multiple of 32."""
    multipliers: list[int] = field(default_factory=lambda: [1, 2, 3, 4])
    """Feature maps of each level, in multiples of the base; y and x are halved from level to level."""
    attention_levels: list[int] = field(default_factory=lambda: [2])
    """Levels with attention, counted from 0, the finest; the bottom always has attention."""

    def errors(self, size: int = SIDE) -> list[str]:
        """Return what is wrong with the options, also for fields of this side length, one line per error."""
        levels = len(self.multipliers)
        errors = option_errors(
            self,
            (
                "base_channels",
                self.base_channels >= GROUPS and self.base_channels % GROUPS == 0,
                f"a multiple of {GROUPS}",
            ),
            ("multipliers", levels > 0 and min(self.multipliers) >= 1, "numbers of 1 or more, one per level"),
            ("attention_levels", all(0 <= level < levels for level in self.attention_levels), f"0 to {levels - 1}"),
        )
        if size != SIDE:
            errors.append(f"base_channels: dispr_unet needs fields of the image's size: field.size {SIDE}, not {size}")
        return errors

    def build(self, size: int = SIDE, outputs: int = 2, extra_channels: int = 0) -> "DISPRUNet":
        """Return the network; raise `InputError` if an option is out of range.

        Parameters
        ----------
        size : int
            Side of the volume in voxels; the same as that of the image.
        outputs : int
            Output channels: 2 for noise and its variance, 1 for noise, velocity or shape.
        extra_channels : int
            Channels of the condition besides the mask and the image; 0 in the published network.
        """
        raise_errors("dispr_unet", self.errors(size))
        return DISPRUNet(self, outputs, extra_channels)


class Attention(nn.Module):
    """Self-attention with one head over all voxels, added to its input."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(GROUPS, channels, EPSILON)
        self.query_key_value = nn.Linear(channels, 3 * channels)
        self.out = zero_module(nn.Linear(channels, channels))

    def forward(self, x_BCZYX: torch.Tensor) -> torch.Tensor:
        """Return a tensor of the same shape."""
        tokens = self.norm(x_BCZYX).flatten(2).transpose(1, 2)
        query, key, value = self.query_key_value(tokens).unsqueeze(1).chunk(3, dim=-1)
        mixed = F.scaled_dot_product_attention(query, key, value).squeeze(1)
        return x_BCZYX + self.out(mixed).transpose(1, 2).view_as(x_BCZYX)


class Level(nn.Module):
    """Residual block with a time embedding, and optional attention."""

    def __init__(self, in_channels: int, out_channels: int, time_channels: int, attention: bool) -> None:
        super().__init__()
        self.residual = DiffusionUNetResnetBlock(
            3, in_channels, time_channels, out_channels, norm_num_groups=GROUPS, norm_eps=EPSILON
        )
        self.attention = Attention(out_channels) if attention else nn.Identity()

    def forward(self, x_BCZYX: torch.Tensor, time_BE: torch.Tensor) -> torch.Tensor:
        """Return features (B, out_channels, Z, Y, X)."""
        return self.attention(self.residual(x_BCZYX, time_BE))


class DISPRUNet(nn.Module):
    """Predicts noise and variance of a noisy volume from a slice through it.

    Parameters
    ----------
    config : DISPRUNetConfig
        Valid options.
    outputs : int
        Output channels.
    extra_channels : int
        Channels of the condition besides the mask and the image.
    """

    def __init__(self, config: DISPRUNetConfig, outputs: int = 2, extra_channels: int = 0) -> None:
        super().__init__()
        widths = [config.base_channels * multiplier for multiplier in config.multipliers]
        base, embedding, depth = config.base_channels, 4 * config.base_channels, len(widths)
        self.base_channels, self.divisor = base, (1, 2 ** (depth - 1), 2 ** (depth - 1))
        self.time = nn.Sequential(nn.Linear(base, embedding), nn.SiLU(), nn.Linear(embedding, embedding))
        self.stem = nn.Conv3d(3 + extra_channels, base, 3, padding=1)
        self.encoder, self.downs = nn.ModuleList(), nn.ModuleList()
        skips, channels = [base], base
        for level, width in enumerate(widths):
            self.encoder.append(Level(channels, width, embedding, level in config.attention_levels))
            skips, channels = [*skips, width], width
            if level + 1 < depth:
                self.downs.append(nn.Conv3d(width, width, 3, stride=(1, 2, 2), padding=1))
                skips.append(width)
        self.bottom_in = Level(channels, channels, embedding, attention=True)
        self.bottom_out = Level(channels, channels, embedding, attention=False)
        self.decoder, self.ups = nn.ModuleList(), nn.ModuleList()
        for level, width in reversed(list(enumerate(widths))):
            for _ in range(2):
                self.decoder.append(Level(channels + skips.pop(), width, embedding, level in config.attention_levels))
                channels = width
            if level:
                self.ups.append(nn.Conv3d(width, width, 3, padding=1))
        self.norm = nn.GroupNorm(GROUPS, channels, EPSILON)
        self.head = zero_module(nn.Conv3d(channels, outputs, 3, padding=1))

    def forward(self, x_BCZYX: torch.Tensor, t_B: torch.Tensor, condition_BCYX: torch.Tensor) -> torch.Tensor:
        """Return the prediction for a noisy volume.

        Parameters
        ----------
        x_BCZYX : float tensor, (B, 1, Z, Y, X)
            Noisy volume; y and x multiples of 8.
        t_B : float tensor
            Times from 0 (data) to 1000 (noise).
        condition_BCYX : float tensor, (B, 2, Y, X)
            The mask and the masked image.

        Returns
        -------
        float tensor, (B, outputs, Z, Y, X)
        """
        check_size("dispr_unet", x_BCZYX.shape[2:], self.divisor, self.divisor)
        time = self.time(get_timestep_embedding(t_B, self.base_channels).to(x_BCZYX.dtype))
        slices = condition_BCYX[:, :, None].expand(-1, -1, x_BCZYX.shape[2], -1, -1)
        x = self.stem(torch.cat([slices, x_BCZYX], dim=1))
        skips = [x]
        for level, block in enumerate(self.encoder):
            x = block(x, time)
            skips.append(x)
            if level < len(self.downs):
                x = self.downs[level](x)
                skips.append(x)
        x = self.bottom_out(self.bottom_in(x, time), time)
        for half, block in enumerate(self.decoder):
            x = block(torch.cat([x, skips.pop()], dim=1), time)
            if half % 2 and half // 2 < len(self.ups):
                x = self.ups[half // 2](F.interpolate(x, scale_factor=(1, 2, 2), mode="nearest"))
        return self.head(F.silu(self.norm(x)))
