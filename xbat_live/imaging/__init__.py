"""Live numerics on frames: correction, checks, registration, blur, motion. Pure numpy and scipy; no control system, no files."""

from xbat_live.imaging.blur import BlurResult
from xbat_live.imaging.checks import FrameCheck, check_frame
from xbat_live.imaging.correction import optical_density
from xbat_live.imaging.live import BlurScreen, LiveRegistrar, ShiftResult
from xbat_live.imaging.motion import DriftModel, Motion
from xbat_live.imaging.pipeline import FramePipeline, FrameVerdict

__all__ = [
    "BlurResult",
    "BlurScreen",
    "DriftModel",
    "FrameCheck",
    "FramePipeline",
    "FrameVerdict",
    "LiveRegistrar",
    "Motion",
    "ShiftResult",
    "check_frame",
    "optical_density",
]
