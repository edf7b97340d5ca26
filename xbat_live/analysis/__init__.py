"""Analysis after the run: what the archive holds becomes numbers, arrays beside the run, and figures."""

from xbat_live.analysis.deformation import Compass, PairFlow, flow_between
from xbat_live.analysis.displacement import Histogram, MotionPath, motion_path
from xbat_live.analysis.motion import MotionAnalysis, analyse_motion, parse_pairs
from xbat_live.analysis.run_frames import AnalysisError, FieldFrames, FieldKey, RunFrames
from xbat_live.analysis.storing import store_motion

__all__ = [
    "AnalysisError",
    "Compass",
    "FieldFrames",
    "FieldKey",
    "Histogram",
    "MotionAnalysis",
    "MotionPath",
    "PairFlow",
    "RunFrames",
    "analyse_motion",
    "flow_between",
    "motion_path",
    "parse_pairs",
    "store_motion",
]
