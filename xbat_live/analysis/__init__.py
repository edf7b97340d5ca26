"""Analysis after the run: what the archive holds becomes numbers, arrays beside the run, and figures."""

from xbat_live.analysis.deformation import Compass, PairFlow, flow_between
from xbat_live.analysis.displacement import Histogram, MotionPath, motion_path
from xbat_live.analysis.motion import MotionAnalysis, analyse_motion, parse_pairs, recorded_image_to_stage
from xbat_live.analysis.protocol_cubes import ProtocolCubes, protocol_cubes
from xbat_live.analysis.run_frames import AnalysisError, FieldFrames, FieldKey, RunFrames
from xbat_live.analysis.storing import store_motion, store_xas
from xbat_live.analysis.xas import analyse_xas
from xbat_live.analysis.xas_results import CubeGroup, Evolution, XasRunAnalysis

__all__ = [
    "AnalysisError",
    "Compass",
    "CubeGroup",
    "Evolution",
    "FieldFrames",
    "FieldKey",
    "Histogram",
    "MotionAnalysis",
    "MotionPath",
    "PairFlow",
    "ProtocolCubes",
    "RunFrames",
    "XasRunAnalysis",
    "analyse_motion",
    "analyse_xas",
    "flow_between",
    "motion_path",
    "parse_pairs",
    "protocol_cubes",
    "recorded_image_to_stage",
    "store_motion",
    "store_xas",
]
