"""Make the README's picture from a real run: ``python docs/make_picture.py RUN_FOLDER OUT.png``.

RUN_FOLDER is what ``xbat demo`` leaves behind. Needs matplotlib, which nothing else in the project uses: ``pip install matplotlib``.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import matplotlib as mpl
import numpy as np

from xbat_live.archive import TiledServer, connect, open_run
from xbat_live.config import ExperimentConfig, load_config
from xbat_live.dose import DoseMap, Ledger
from xbat_live.dose_setup import make_account
from xbat_live.imaging import optical_density

if TYPE_CHECKING:
    import pandas as pd

mpl.use("Agg")

import matplotlib.pyplot as plt
from matplotlib import patheffects
from matplotlib.colors import ListedColormap
from matplotlib.patches import Rectangle
from PIL import Image

FIELD_UM = 12.0
ACCEPTED, REJECTED, INK, PAPER = "#3aa66f", "#d1495b", "#22262e", "#ffffff"
_HALO = [patheffects.withStroke(linewidth=2.2, foreground=PAPER)]


@dataclass(frozen=True)
class Run:
    """What the picture shows of a run.

    Attributes
    ----------
    frames
        One row per frame of the sample: its Event joined with the verdict on it.
    dose
        Dose map from the ledger.
    """

    config: ExperimentConfig
    frames: pd.DataFrame
    dose: DoseMap


def read_run(folder: Path) -> Run:
    """Read the last run of a demonstration folder."""
    config = load_config(folder / "experiment.toml")
    with TiledServer(folder / "archive", readable_storage=[folder / "frames"]) as server:
        server.wait_ready(timeout_s=90)
        run = open_run(connect(server.uri, server.api_key))
        frames = run.events("primary").join(run.analysis().filter(like="analysis_"))
    with Ledger.for_sample(folder / "ledger", config.sample.name, read_only=True) as ledger:
        return Run(config, frames, make_account(config, ledger).dose_map())


def density(run: Run, row: pd.Series, file: h5py.File) -> np.ndarray:
    """Return the optical density of one frame, cut out around the same place of the sample whatever its jitter, (ny, nx)."""
    data = file["entry/data"]
    image = optical_density(
        data["data"][row.camera_frame_index], np.mean(data["flat"][:8], axis=0), np.mean(data["dark"], axis=0)
    )
    half_px = round(FIELD_UM / run.config.camera.pixel_size_um / 2)
    centre = [
        size // 2 + round(shift)
        for size, shift in zip(image.shape, (row.analysis_shift_y_px, row.analysis_shift_x_px), strict=True)
    ]
    y, x = (int(np.clip(c, half_px, size - half_px)) for c, size in zip(centre, image.shape, strict=True))
    return image[y - half_px : y + half_px, x - half_px : x + half_px]


def choose(frames: pd.DataFrame) -> list[int]:
    """Return row numbers of six frames: three accepted ones of different spots, then a blurred one between accepted ones of its field."""
    blurred = [
        i
        for i in frames.index[frames.analysis_verdict == "blurred"]
        if i + 1 in frames.index
        and frames.point_attempt[i + 1] > 0
        and frames.analysis_accepted[i + 1]
        and frames.analysis_keyframe_id[i] >= 0
    ]
    worst = max(blurred, key=lambda i: frames.analysis_blur_extent_px[i])
    same = (frames.point_spot == frames.point_spot[worst]) & (frames.point_field == frames.point_field[worst])
    before = frames.index[same & (frames.analysis_accepted == 1) & (frames.index < worst)][-1]
    others = [s for s in frames.point_spot.unique() if s != frames.point_spot[worst]]
    chosen = [others[i] for i in np.linspace(0, len(others) - 1, 3).round().astype(int)]
    good = [frames.index[(frames.point_spot == s) & (frames.analysis_accepted == 1)][0] for s in chosen]
    return [*good, before, worst, worst + 1]


def draw_dose(run: Run, axes: Any) -> None:
    """Draw the dose map with the electrode's outline and the spots in the order they were used."""
    limit_kgy = run.config.dose.limit_gy / 1e3
    dose = run.dose
    step_um = dose.x_um[1] - dose.x_um[0]
    extent = (
        dose.x_um[0] - step_um / 2,
        dose.x_um[-1] + step_um / 2,
        dose.y_um[-1] + step_um / 2,
        dose.y_um[0] - step_um / 2,
    )
    image = axes.imshow(
        dose.dose_gy / 1e3, extent=extent, cmap=_dose_colours(), vmin=0, vmax=limit_kgy, interpolation="nearest"
    )
    width, height = run.config.sample.size_um
    axes.add_patch(Rectangle((-width / 2, -height / 2), width, height, fill=False, edgecolor=INK, linewidth=1.0))
    targets = run.frames[["point_spot", "point_target_x_um", "point_target_y_um"]].drop_duplicates()
    centres = targets.groupby("point_spot").mean().to_numpy()
    axes.plot(*centres.T, color=INK, linewidth=0.9, linestyle=(0, (4, 3)), alpha=0.75)
    for number, (x, y) in enumerate(centres, 1):
        axes.plot(x, y, "o", markersize=15, color=PAPER, markeredgecolor=INK, markeredgewidth=0.9)
        axes.text(x, y, str(number), ha="center", va="center_baseline", fontsize=10, color=INK, fontweight="bold")
    margin = 8
    axes.set(xlim=(-width / 2 - margin, width / 2 + margin), ylim=(height / 2 + margin, -height / 2 - margin))
    axes.set(xlabel="sample x (µm)", ylabel="sample y (µm)")
    material, peak_kgy = run.config.sample.material, dose.dose_gy.max() / 1e3
    axes.set_title(
        f"highest {peak_kgy:.0f} kGy, limit {limit_kgy:g} kGy; spots in the order used",
        loc="left",
        fontsize=9.5,
        color=INK,
    )
    axes.annotate(
        f"Dose in {material}",
        (0, 1),
        (0, 21),
        xycoords="axes fraction",
        textcoords="offset points",
        fontsize=12,
        fontweight="bold",
    )
    bar = axes.figure.colorbar(image, ax=axes, fraction=0.046, pad=0.03)
    bar.set_label(f"dose in {material} (kGy)")
    bar.outline.set_linewidth(0.6)


def _dose_colours() -> Any:
    """White at no dose, then magma towards the limit: evenly perceived, also in grey and by the colour-blind."""
    dark = mpl.colormaps["magma_r"](np.linspace(0.06, 0.97, 244))
    pale = np.linspace((1.0, 1.0, 1.0, 1.0), dark[0], 12, endpoint=False)
    return ListedColormap(np.vstack([pale, dark]))


def draw_frame(
    run: Run, row: pd.Series, image: np.ndarray, axes: Any, limits: tuple[float, float], *, first: bool, retake: bool
) -> None:
    """Draw one frame with its verdict."""
    accepted = bool(row.analysis_accepted)
    colour = ACCEPTED if accepted else REJECTED
    axes.imshow(image, cmap="gray", vmin=limits[0], vmax=limits[1], interpolation="antialiased")
    axes.set(xticks=[], yticks=[])
    for side in axes.spines.values():
        side.set(color=colour, linewidth=1.4 if accepted else 3.0)
    what = (
        ("retaken: accepted" if retake else "accepted")
        if accepted
        else f"rejected: blurred by {row.analysis_blur_extent_px:.0f} px"
    )
    axes.set_title(what, loc="left", fontsize=10, color=colour, fontweight="bold", pad=4)
    axes.set_xlabel(
        f"spot {int(row.point_spot) + 1}, {1e-3 * row.point_dose_gy:.0f} kGy, {row.potentiostat_voltage_v:.2f} V",
        fontsize=9,
        color=INK,
        labelpad=3,
    )
    if first:
        length_px, margin = 2.0 / run.config.camera.pixel_size_um, 0.05 * image.shape[0]
        bottom = image.shape[0] - margin
        axes.add_patch(Rectangle((margin, bottom - 7), length_px, 7, color=INK, path_effects=_HALO))
        axes.text(
            margin + length_px / 2,
            bottom - 14,
            "2 µm",
            ha="center",
            va="bottom",
            fontsize=10,
            color=INK,
            path_effects=_HALO,
        )


def draw(run: Run, frame_file: Path, out: Path) -> None:
    """Draw the whole picture into `out`."""
    mpl.rcParams.update(
        {
            "font.family": "DejaVu Sans",
            "font.size": 10,
            "axes.linewidth": 0.7,
            "text.color": INK,
            "axes.labelcolor": INK,
        }
    )
    figure = plt.figure(figsize=(13.2, 5.75), facecolor=PAPER, layout="constrained")
    left, right = figure.subfigures(1, 2, width_ratios=(1.0, 1.2), wspace=0.03)
    draw_dose(run, left.subplots())
    rows = choose(run.frames)
    with h5py.File(frame_file) as file:
        images = [density(run, run.frames.loc[i], file) for i in rows]
    sharp = np.concatenate(
        [image.ravel() for i, image in zip(rows, images, strict=True) if run.frames.analysis_accepted[i]]
    )
    limits = (float(np.quantile(sharp, 0.002)), float(np.quantile(sharp, 0.998)))
    right.suptitle(
        f"Frames and their verdicts: optical density {abs(limits[0]):.1f} to {limits[1]:.1f}",
        x=0.01,
        ha="left",
        fontsize=12,
        fontweight="bold",
    )
    for number, (axes, i, image) in enumerate(zip(right.subplots(2, 3).flat, rows, images, strict=True)):
        draw_frame(run, run.frames.loc[i], image, axes, limits, first=number == 0, retake=number == len(rows) - 1)
    figure.savefig(out, dpi=114)
    plt.close(figure)
    with Image.open(out) as image:
        image.convert("RGB").quantize(palette=_palette(), dither=Image.Dither.NONE).save(out, optimize=True)


def _palette() -> Image.Image:
    """256 colours that show this picture well and halve the file: dose, greys, and the verdicts' colours fading to white."""
    fading = [np.linspace(mpl.colors.to_rgb(colour), (1, 1, 1), 12, endpoint=False) for colour in (ACCEPTED, REJECTED)]
    colours = np.vstack(
        [_dose_colours()(np.linspace(0, 1, 136))[:, :3], np.repeat(np.linspace(0, 1, 96)[:, None], 3, axis=1), *fading]
    )
    image = Image.new("P", (1, 1))
    image.putpalette((colours * 255).round().astype(np.uint8).ravel().tolist())
    return image


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run_folder", type=Path, help="folder of a demonstration run, e.g. xbat-demo/20261121-051447")
    parser.add_argument("out", type=Path, help="PNG file to write")
    options = parser.parse_args()
    run = read_run(options.run_folder.resolve())
    draw(run, Path(run.frames.camera_frame_file.iloc[0]), options.out)


if __name__ == "__main__":
    main()
