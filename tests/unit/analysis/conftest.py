"""A run with known drift, jitter and deformation, as the archive would hand it out; no server, no twin."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pandas as pd
import pytest
from frames_synthetic import particles
from scipy import ndimage

PIXEL_UM = 0.03324
DRIFT_YX_UM_PER_MIN = np.array([5.2, 0.6]) / 840  # R1
JITTER_YX_UM = np.array([0.05, 0.35])
FLAT_LEVEL, DARK_LEVEL = 1000.0, 100.0


@dataclass
class SyntheticRun:
    """Stands for `Run`: the same methods, arrays in memory; counts the frames that are read."""

    uid: str
    start: dict
    tables: dict[str, pd.DataFrame]
    images: dict[str, np.ndarray]
    verdicts: pd.DataFrame
    truth: dict = field(default_factory=dict)
    stop: dict = field(default_factory=lambda: {"exit_status": "success"})
    reads: list = field(default_factory=list)

    @property
    def streams(self):
        return tuple(sorted({*self.tables, *(["analysis"] if len(self.verdicts) else [])}))

    def frame_stack(self, stream="primary", key=None):
        return CountedFrames(self.images[stream], stream, self.reads)

    def events(self, stream="primary"):
        return self.tables[stream].copy()

    def deformation_px(self, y_px, x_px, peak_px):
        return opening_px(y_px, x_px, self.images["primary"].shape[1:], peak_px)

    def analysis(self):
        return self.verdicts.copy()


@dataclass
class CountedFrames:
    stack: np.ndarray
    stream: str
    reads: list

    @property
    def shape(self):
        return self.stack.shape

    def __len__(self):
        return len(self.stack)

    def __getitem__(self, index):
        assert isinstance(index, int | np.integer), "one frame at a time"
        self.reads.append((self.stream, int(index)))
        return self.stack[index]


def opening_px(y_px, x_px, shape, peak_px):
    """Displacement (2, ...), px, at sample coordinates: an electrode that opens in the middle, left and right halves part."""
    y, x = y_px / shape[0] - 0.5, x_px / shape[1] - 0.5
    return peak_px * np.stack([0.3 * np.tanh(6 * y), np.tanh(6 * x)])


def synthetic_run(
    n=24,
    *,
    shape=(192, 208),
    seed=0,
    interval_min=15.0,
    deform_px=0.0,
    feedback=True,
    photons=1000.0,
    blurred=(),
    n_fields=1,
) -> SyntheticRun:
    """Return a run of `n` frames in each of `n_fields` fields; the stage follows the drift when `feedback`."""
    rng = np.random.default_rng(seed)
    margin = 96
    big = tuple(side + 2 * margin for side in shape)
    drift = DRIFT_YX_UM_PER_MIN * interval_min * np.arange(n)[:, None]
    jitter = rng.normal(0, 1, (n, 2)) * JITTER_YX_UM
    stage = drift.round(1) if feedback else np.zeros((n, 2))
    shift_px = (drift + jitter - stage) / PIXEL_UM
    grid = np.mgrid[0 : shape[0], 0 : shape[1]]
    flat = (
        FLAT_LEVEL
        * photons
        / 1000
        * (1 + 0.02 * rng.normal(size=shape))
        * np.hanning(2 * shape[0])[None, shape[0] // 2 :][:, :1]
    )
    rows, images = [], []
    names = "ABCDEFG"[:n_fields]
    canvases = [particles(big, seed + 10 * i) for i in range(n_fields)]
    for i in range(n):
        for name, canvas in zip(names, canvases, strict=True):
            at_rest = grid - shift_px[i][:, None, None]  # sample coordinate of each pixel, but for the deformation
            back = at_rest - opening_px(*at_rest, shape, deform_px * i / max(n - 1, 1)) + margin
            od = ndimage.map_coordinates(canvas, back, order=3, mode="grid-wrap")
            images.append(np.clip(rng.poisson(flat * np.exp(-od)) + DARK_LEVEL, 0, 65535).astype(np.uint16))
            place = {"stage_y": -60 + stage[i, 0], "stage_x": -60 + stage[i, 1]}
            rows.append({"point_field": name, "time": 1.8e9 + 60 * interval_min * i, "frame": i, **place})
    primary = pd.DataFrame(rows).assign(point_spot=0, mono_energy=8562.0)
    primary.insert(0, "seq_num", np.arange(1, len(primary) + 1))
    at = primary.pop("frame").to_numpy()
    accepted = np.isin(primary["seq_num"], blurred, invert=True)
    relative = shift_px - shift_px[0]
    verdicts = pd.DataFrame(
        {
            "seq_num": primary["seq_num"],
            "analysis_seq_num": primary["seq_num"],
            "analysis_stream": "primary",
            "analysis_accepted": accepted.astype(int),
            "analysis_verdict": np.where(accepted, "accepted", "blurred"),
            "analysis_shift_y_px": relative[at, 0],
            "analysis_shift_x_px": relative[at, 1],
            "analysis_sigma_y_px": 0.02,
            "analysis_sigma_x_px": 0.02,
        }
    )
    flats = np.stack([rng.poisson(flat) + DARK_LEVEL for _ in range(10)]).astype(np.uint16)
    flat_times = 1.8e9 + np.linspace(0, 60 * interval_min * n, 10)
    return SyntheticRun(
        uid="0123abcd-0000-4000-8000-000000000000",
        start={"pixel_size_um": PIXEL_UM, "plan_name": "operando_txm_series"},
        tables={
            "primary": primary,
            "flat": pd.DataFrame({"seq_num": np.arange(1, 11), "time": flat_times, "mono_energy": 8562.0}),
            "dark": pd.DataFrame({"seq_num": [1, 2], "time": 1.8e9}),
        },
        images={"primary": np.stack(images), "flat": flats, "dark": np.full((2, *shape), DARK_LEVEL, np.uint16)},
        verdicts=verdicts,
        truth={"drift_um": drift, "jitter_um": jitter, "shift_px": shift_px},
    )


@pytest.fixture(scope="session")
def opening_run():
    """24 frames of an electrode that opens by up to 2 px."""
    return synthetic_run(deform_px=2.0)


@pytest.fixture
def make_run():
    return synthetic_run
