"""Analysis after the run: what the archive holds becomes numbers, arrays beside the run, and figures."""

from xbat_live.analysis.deformation import Compass, PairFlow, flow_between
from xbat_live.analysis.displacement import Histogram, MotionPath, motion_path
from xbat_live.analysis.motion import MotionAnalysis, analyse_motion, parse_pairs
from xbat_live.analysis.run_frames import AnalysisError, FieldFrames, FieldKey, RunFrames, find_run
from xbat_live.analysis.storing import StoredAnalysis, list_analyses, open_analysis, store_analysis

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
    "StoredAnalysis",
    "analyse_motion",
    "find_run",
    "flow_between",
    "list_analyses",
    "motion_path",
    "open_analysis",
    "parse_pairs",
    "store_analysis",
]
