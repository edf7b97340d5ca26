"""Small recordings."""

from pathlib import Path

from xbat_live.replay.recording import Exposure, FramePlace, Recording


def exposure(number, stream="primary", **changes):
    values = {
        "number": number,
        "stream": stream,
        "seq_num": number + 1,
        "time_s": 1000.0 + number,
        "point": 0,
        "field": {"primary": "A", "flat": "reference", "dark": "dark"}[stream],
        "spot": 0,
        "attempt": 0,
        "stage_um": (0.0, 0.0),
        "setpoint_um": (0.0, 0.0),
        "energy_ev": 8562.0,
        "exposure_s": 0.05,
        "open_time_s": 0.05,
        "frame": FramePlace(Path("frames.h5"), "frames", number),
    }
    return Exposure(**values | changes)


def recording(exposures, decisions=(), **start):
    return Recording({"uid": "0" * 8, **start}, {}, tuple(exposures), tuple(decisions))
