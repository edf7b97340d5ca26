"""Flats of another exposure than the frames: the live analysis judges light by what the flat would be at the frame's exposure."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest

from xbat_live.callbacks import DriftTracker, FrameAnalysis
from xbat_live.imaging import FramePipeline

SHAPE, BEAM_PER_S, DARK, DENSITY = (64, 96), 20000.0, 100, 1.0


class Frames:
    """Stands for the camera's file: a frame by its number."""

    def __init__(self):
        self.frames = []

    def read(self, address):
        return self.frames[address.index]

    def close(self):
        pass


@pytest.fixture
def lab():
    frames = Frames()
    analysis = FrameAnalysis(
        partial(FramePipeline, pixel_size_um=0.05), DriftTracker(0.05), dose_limit_gy=1e6, reader=frames
    )
    for stream in ("flat", "dark", "primary"):
        analysis.descriptor({"uid": stream, "name": stream})
    analysis.resource({"uid": "file", "resource_path": "frames.h5", "resource_kwargs": {}})

    def expose(stream, exposure_s, transmitted):
        number = len(frames.frames)
        light = np.random.default_rng(number).poisson(BEAM_PER_S * exposure_s * transmitted, SHAPE)
        frames.frames.append((DARK + light).astype(np.uint16))
        analysis.datum({"datum_id": str(number), "resource": "file", "datum_kwargs": {"point_number": number}})
        place = {"stage_x": 0.0, "stage_y": 0.0, "point_spot": 0, "point_field": "A", "point_dose_gy": 0.0}
        data = {"camera_image": str(number), "mono_energy": 8562.0, "point_exposure_s": exposure_s, **place}
        analysis.event({"descriptor": stream, "seq_num": number + 1, "time": 1.8e9 + number, "data": data})

    yield analysis, expose
    analysis.close()


@pytest.mark.parametrize(
    ("flat_s", "frame_s"),
    [
        pytest.param(0.5, 0.5, id="the same"),
        pytest.param(0.3, 0.5, id="SSRL 6-2c: 0.61 of the light would be told for 0.37"),
        pytest.param(0.5, 0.02, id="graded exposures: 1.5 % of the flat's light, which is no closed shutter"),
    ],
)
def test_light_is_compared_at_the_exposure_of_the_frame(lab, flat_s, frame_s):
    analysis, expose = lab
    expose("dark", frame_s, 0.0)
    expose("flat", flat_s, 1.0)
    expose("primary", frame_s, np.exp(-DENSITY))
    verdict = analysis.latest().result(timeout=10).verdict
    assert verdict.transmission == pytest.approx(np.exp(-DENSITY), rel=0.01)
    assert verdict.kind == "blank", "an even sample: enough light, nothing to see"
