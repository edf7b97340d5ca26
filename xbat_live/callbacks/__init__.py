"""Streaming callbacks: judging frames, following the sample, the dose backstop, progress."""

from xbat_live.callbacks.analysis import AnalysedFrame, EventKeys, FrameAnalysis, JudgedFrame
from xbat_live.callbacks.backstop import DoseBackstop
from xbat_live.callbacks.frames import FrameAddress, FrameLocator, FrameNotFound, FrameReader
from xbat_live.callbacks.landmarks import Landmarks
from xbat_live.callbacks.progress import RunProgress, RunState
from xbat_live.callbacks.tracking import DriftTracker, FeedbackCheck, Recognised, TrackedPosition

__all__ = [
    "AnalysedFrame",
    "DoseBackstop",
    "DriftTracker",
    "EventKeys",
    "FeedbackCheck",
    "FrameAddress",
    "FrameAnalysis",
    "FrameLocator",
    "FrameNotFound",
    "FrameReader",
    "JudgedFrame",
    "Landmarks",
    "Recognised",
    "RunProgress",
    "RunState",
    "TrackedPosition",
]
