"""Spectra: XANES of every pixel of a hyperspectral cube. Pure numerics; cubes are (n_energy, ny, nx)."""

from xbat_live.spectra.absorbance import FrameAbsorbance, absorbance, bin_frames
from xbat_live.spectra.calibration import ShiftMap, calibrate_energy
from xbat_live.spectra.dose_curve import DoseCurve, fraction_against_dose
from xbat_live.spectra.edge import EdgeMap, edge_energy_map
from xbat_live.spectra.fractions import FractionMaps, StreamingFractions, fit_fractions
from xbat_live.spectra.mcr import McrResult, mcr_als
from xbat_live.spectra.normalisation import normalise
from xbat_live.spectra.pca import PcaAccumulator, pca
from xbat_live.spectra.threshold import Threshold, dose_threshold

__all__ = [
    "DoseCurve",
    "EdgeMap",
    "FractionMaps",
    "FrameAbsorbance",
    "McrResult",
    "PcaAccumulator",
    "ShiftMap",
    "StreamingFractions",
    "Threshold",
    "absorbance",
    "bin_frames",
    "calibrate_energy",
    "dose_threshold",
    "edge_energy_map",
    "fit_fractions",
    "fraction_against_dose",
    "mcr_als",
    "normalise",
    "pca",
]
