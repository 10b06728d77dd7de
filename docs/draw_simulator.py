"""Draw the figures of docs/simulator.md, truth and observation, and print its table of best windows.

Run from the repository's root: ``python -m docs.draw_simulator`` (half a minute on one core).
"""

import argparse
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from PIL import Image, ImageOps

from cytovox.metrics.overlap import RIWindowFit
from cytovox.simulation import PRESETS, Tomogram, simulate

COLOURS = {"membrane": "#4cc9f0", "nucleus": "#f9c74f", "nucleolus": "#f94144", "lipid": "#90be6d"}


def draw(tomogram: Tomogram, path: Path) -> None:
    """Four columns (true index, observed index, masks, cells), xy above xz."""
    z, y = busiest(tomogram)
    spacing = tomogram.spacing_um
    depth, height, width = tomogram.ri_ZYX.shape
    figure, axes = plt.subplots(
        2, 4, figsize=(12, 4.9), height_ratios=[height * spacing[1], depth * spacing[0]], layout="constrained"
    )
    for row, (cut, aspect) in enumerate(((np.s_[z], spacing[1] / spacing[2]), (np.s_[:, y], spacing[0] / spacing[2]))):
        show = {"aspect": aspect, "origin": "lower", "interpolation": "nearest"}
        for column, volume in enumerate((tomogram.ri_true_ZYX, tomogram.ri_ZYX, tomogram.ri_ZYX)):
            shown = axes[row, column].imshow(volume[cut], cmap="gray", vmin=1.333, vmax=1.385, **show)
        for name, mask in tomogram.masks.items():
            if mask[cut].any():
                axes[row, 2].contour(mask[cut], [0.5], colors=COLOURS[name], linewidths=0.8)
        labels = np.ma.masked_equal(tomogram.cells_ZYX[cut], 0)
        axes[row, 3].imshow(labels % 10, cmap="tab10", vmin=0, vmax=9, **show)
        axes[row, 3].contour(tomogram.nuclei_ZYX[cut] > 0, [0.5], colors="white", linewidths=0.8)
    for axis in axes.flat:
        axis.set(xticks=[], yticks=[])
    for axis, title in zip(axes[0], ("true index", "observed index", "masks on it", "cells, nuclei"), strict=True):
        axis.set_title(title, fontsize=9)
    axes[0, 0].set_ylabel(f"xy, z = {(z + 0.5) * spacing[0]:.1f} µm", fontsize=8)
    axes[1, 0].set_ylabel(f"xz, y = {(y + 0.5) * spacing[1]:.1f} µm", fontsize=8)
    figure.colorbar(shown, ax=axes[:, 3], shrink=0.8)
    figure.suptitle(f"{tomogram.preset}, seed {tomogram.seed}", fontsize=10)
    figure.savefig(path, dpi=72)
    plt.close(figure)
    shrink(path)
    print(path)


def shrink(path: Path) -> None:
    """Keep a picture's 256 commonest colours of 5 bits: a third of the bytes, and grey stays grey."""
    coarse = ImageOps.posterize(Image.open(path).convert("RGB"), 5)
    common = sorted(coarse.getcolors(1 << 15), reverse=True)[:256]
    palette = Image.new("P", (1, 1))
    palette.putpalette([value for _, colour in common for value in colour])
    coarse.quantize(palette=palette, dither=Image.Dither.NONE).save(path, optimize=True)


def busiest(tomogram: Tomogram) -> tuple[int, int]:
    """The z and y where most kinds of organelle are seen, each counted by its share of its own volume."""
    depth, height, _ = tomogram.ri_ZYX.shape
    total_z, total_y = np.zeros(depth), np.zeros(height)
    for name, weight in (("nucleus", 2.0), ("nucleolus", 1.0), ("lipid", 0.4)):
        mask = tomogram.masks[name]
        total_z += weight * mask.sum((1, 2)) / max(mask.sum(), 1)
        total_y += weight * mask.sum((0, 2)) / max(mask.sum(), 1)
    margin = len(total_y) // 5  # cells cut by the border say less
    return int(np.argmax(total_z)), margin + int(np.argmax(total_y[margin:-margin]))


def print_windows(volumes: int) -> None:
    """The best single window of index for each organelle, fitted on the very volumes it is scored on."""
    fits = {name: RIWindowFit() for name in (*PRESETS, "all")}
    for preset in PRESETS:
        for seed in range(volumes):
            tomogram = simulate(preset, seed)
            for name in (preset, "all"):
                fits[name].add(tomogram.ri_ZYX, tomogram.masks)
    for name, fit in fits.items():
        print(f"| {name} |", " | ".join(f"{window.dice:.2f}" for window in fit.fit().values()), "|")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("docs/pictures"))
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--windows", type=int, default=4, help="volumes of each preset that the windows are fitted on")
    chosen = parser.parse_args()
    chosen.out.mkdir(parents=True, exist_ok=True)
    for preset in PRESETS:
        draw(simulate(preset, chosen.seed), chosen.out / f"simulator_{preset}.png")
    print_windows(chosen.windows)


if __name__ == "__main__":
    main()
