"""Numerics on frames: correction, checks, registration, blur, motion, deformation. Pure numpy, scipy and scikit-image; no EPICS."""

from xbat_live.imaging.blur import BlurResult
from xbat_live.imaging.checks import FrameCheck, check_frame
from xbat_live.imaging.correction import optical_density
from xbat_live.imaging.flow import optical_flow
from xbat_live.imaging.flow_regions import BoxConvergence, FlowClusters, box_convergence, cluster_flow
from xbat_live.imaging.flow_statistics import FlowStatistics, MeanDisplacement, flow_statistics, mean_displacement
from xbat_live.imaging.kernels import (
    BlurKernel,
    DerivedFrame,
    KernelClass,
    KernelClasses,
    classify_by_kernel,
    deconvolve,
)
from xbat_live.imaging.live import BlurScreen, LiveRegistrar, ShiftResult
from xbat_live.imaging.motion import DriftModel, DriftSeparation, Motion, separate_drift
from xbat_live.imaging.pipeline import FramePipeline, FrameVerdict
from xbat_live.imaging.stage_calibration import CalibrationError, StageCalibration, fit_stage_calibration
from xbat_live.imaging.warping import RegisteredFrame, difference_map, register_nonrigid, warp

__all__ = [
    "BlurKernel",
    "BlurResult",
    "BlurScreen",
    "BoxConvergence",
    "CalibrationError",
    "DerivedFrame",
    "DriftModel",
    "DriftSeparation",
    "FlowClusters",
    "FlowStatistics",
    "FrameCheck",
    "FramePipeline",
    "FrameVerdict",
    "KernelClass",
    "KernelClasses",
    "LiveRegistrar",
    "MeanDisplacement",
    "Motion",
    "RegisteredFrame",
    "ShiftResult",
    "StageCalibration",
    "box_convergence",
    "check_frame",
    "classify_by_kernel",
    "cluster_flow",
    "deconvolve",
    "difference_map",
    "fit_stage_calibration",
    "flow_statistics",
    "mean_displacement",
    "optical_density",
    "optical_flow",
    "register_nonrigid",
    "separate_drift",
    "warp",
]
