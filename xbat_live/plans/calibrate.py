"""How the camera is mounted against the stage, measured with a few guarded exposures around one spot."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any

import bluesky.plan_stubs as bps
import numpy as np
from bluesky.utils import MsgGenerator

from xbat_live.devices import TxmBeamline
from xbat_live.dose import DoseRefused
from xbat_live.imaging.stage_calibration import (
    N_SIGMA,
    CalibrationError,
    StageCalibration,
    fit_stage_calibration,
)
from xbat_live.plans.guard import DoseGuard
from xbat_live.plans.metadata import bound_arguments, run_metadata
from xbat_live.plans.protocols import LiveAnalysis, SpotChooser
from xbat_live.plans.running import Clock, run_series
from xbat_live.plans.series import Series, SeriesSummary, decide, measure_field
from xbat_live.plans.stubs import Target, move_to_spot, take_flats

FIELD = "A"
_AROUND = ((1.0, 0.0), (-1.0, 0.0), (0.0, 1.0), (0.0, -1.0))


@dataclass(frozen=True)
class CalibrationSummary(SeriesSummary):
    """What `calibrate_stage` did and found; its `outcome` holds the line for the experiment file, or why there is none.

    Attributes
    ----------
    calibration
        None when it could not be determined.
    """

    calibration: StageCalibration | None = None


def calibrate_stage(
    beamline: TxmBeamline,
    guard: DoseGuard,
    analysis: LiveAnalysis,
    choose_spot: SpotChooser,
    *,
    exposure_s: float = 0.048,
    spot_um: tuple[float, float] = (0.0, 0.0),
    step_um: tuple[float, float] = (2.0, 2.0),
    n_repeats: int = 2,
    reference_um: tuple[float, float] = (-250.0, 0.0),
    n_flats: int = 1,
    n_darks: int = 5,
    max_retakes: int = 1,
    verdict_timeout_s: float = 10.0,
    pixel_size_um: float = 0.03324,
    md: dict[str, Any] | None = None,
) -> MsgGenerator[CalibrationSummary]:
    """Move the stage by known steps around one spot and find from the images how the camera is mounted.

    ``1 + 5 n_repeats`` guarded exposures, whose dose counts like any other: the spot, then in every repeat one step to either side
    in x and in y, and back. The result is recorded as the decision ``calibrate`` and holds for ``camera.image_to_stage``; a fit that
    is not good is refused, with the reason. Nothing is relocated: at a dose limit the calibration ends. The shutter is closed on every
    way out.

    Parameters
    ----------
    choose_spot
        Not asked.
    spot_um
        Sample coordinate (x, y) with structure, um.
    step_um
        Moves in x and in y, um: well above the repositioning error, well below the field of view.
    n_repeats
        How often all moves are made, at least 1; from 2 on the repositioning error is measured well.
    pixel_size_um
        Unbinned pixel in the sample plane, um.
    others
        As in `operando_txm_series`.

    Raises
    ------
    ValueError
        Steps or repeats that are not positive.
    """
    if not all(0 < abs(step) < math.inf for step in step_um) or n_repeats < 1:
        raise ValueError(f"step {step_um} µm, {n_repeats} repeats: steps must not be 0, and there must be a repeat")
    arguments = bound_arguments(locals())
    series = Series.of(beamline, guard, analysis, choose_spot, arguments | {"policy": "halt"})
    seen: list[_Seen] = []
    found: StageCalibration | None = None
    outcome = "not started"

    def point(index: int) -> MsgGenerator[None]:
        nonlocal found, outcome
        yield from take_flats(
            beamline, guard, series.records.point, reference_um=reference_um, exposure_s=exposure_s, n=n_flats
        )
        try:
            accepted = yield from _look_around(series, seen, step_um, n_repeats)
            if accepted and not seen:  # a forecast judges frames without measuring them
                outcome = "completed"
                return
            found = _fit(seen, pixel_size_um)
            outcome = yield from _tell(series, found)
        except (CalibrationError, DoseRefused) as error:
            outcome = f"not calibrated: {error}"
            yield from decide(series, "calibrate", outcome, threshold=N_SIGMA, frames=series.frames)

    summary = yield from run_series(
        series,
        point,
        clock=Clock(1, 0.0),
        title=f"calibration of the stage axes: {1 + 5 * n_repeats} frames, moves of {step_um[0]:g}, {step_um[1]:g} µm in x, y",
        n_darks=n_darks,
        protocol=(),
        metadata=run_metadata("calibrate_stage", arguments | {"n_points": 1}, beamline, guard, md),
    )
    told = {item.name: getattr(summary, item.name) for item in fields(summary)}
    return CalibrationSummary(**told | {"outcome": outcome}, calibration=found)


@dataclass(frozen=True)
class _Seen:
    """One accepted frame: where the stage said it was, um, and what the image showed, px."""

    stage_xy_um: tuple[float, float]
    shift_yx_px: tuple[float, float]
    sigma_yx_px: tuple[float, float]


def _offsets_um(step_um: tuple[float, float], n_repeats: int) -> Iterator[tuple[float, float]]:
    """Yield the moves (x, y), um, in an order that tells them from a drift: every second repeat runs backwards."""
    yield 0.0, 0.0
    for repeat in range(n_repeats):
        for x, y in _AROUND if repeat % 2 == 0 else _AROUND[::-1]:
            yield x * step_um[0], y * step_um[1]
        yield 0.0, 0.0


def _look_around(series: Series, seen: list[_Seen], step_um: tuple[float, float], n_repeats: int) -> MsgGenerator[int]:
    """Take all frames, add what they show to `seen`, and return how many were accepted."""
    stage, accepted = series.beamline.stage, 0
    # halt is the policy: a decision that says why, and no other spot
    remedies = series.remedies(moving=False)
    for dx_um, dy_um in _offsets_um(step_um, n_repeats):
        target = Target(FIELD, series.spot, series.spot_um[0] + dx_um, series.spot_um[1] + dy_um)
        yield from move_to_spot(series.beamline, target)
        frame = yield from measure_field(series, target, remedies=remedies)
        if frame is None or not frame.accepted:
            continue
        accepted += 1
        values = frame.record()
        if "shift_x_px" not in values:
            continue
        x_um = float((yield from bps.rd(stage.x.user_readback)))
        y_um = float((yield from bps.rd(stage.y.user_readback)))
        shift, sigma = ((float(values[f"{name}_y_px"]), float(values[f"{name}_x_px"])) for name in ("shift", "sigma"))
        seen.append(_Seen((x_um, y_um), shift, sigma))
    return accepted


def _fit(seen: list[_Seen], pixel_size_um: float) -> StageCalibration:
    if not seen:
        raise CalibrationError("no frame was accepted; is there structure at plan.spot, and light?")
    return fit_stage_calibration(
        np.array([item.stage_xy_um for item in seen]),
        np.array([item.shift_yx_px for item in seen]),
        np.array([item.sigma_yx_px for item in seen]),
        pixel_size_um,
    )


def _tell(series: Series, found: StageCalibration) -> MsgGenerator[str]:
    """Record the decision and return the outcome of the plan."""
    reason = (
        f"the image is {found.orientation} (determinant {found.determinant:+.3f} ± {found.determinant_sigma:.3f}, rotation "
        f"{found.rotation_deg:+.1f} ± {found.rotation_sigma_deg:.1f} deg, scale {found.scale:.3f}); [camera] {found.toml()}"
    )
    yield from decide(
        series,
        "calibrate",
        reason,
        threshold=N_SIGMA,
        orientation=found.orientation,
        image_to_stage=found.rigid.tolist(),
        fitted=found.matrix.tolist(),
        sigma=found.sigma.tolist(),
        determinant=found.determinant,
        determinant_sigma=found.determinant_sigma,
        rotation_deg=found.rotation_deg,
        scale=found.scale,
        residual_um=found.residual_um,
        frames=found.n_frames,
    )
    return f"calibrated: {reason}"
