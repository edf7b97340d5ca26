"""Live analysis of energy sweeps as a callback: follows every cube in its file while it is taken, never holds up the plan."""

from __future__ import annotations

import json
import logging
import math
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from bluesky.callbacks import CallbackBase

from xbat_live.callbacks.analysis import DARKS_AVERAGED
from xbat_live.callbacks.frames import FrameLocator, FrameReader
from xbat_live.callbacks.running_mean import RunningMean
from xbat_live.callbacks.xas_curve import BINS, edge_curve, edge_threshold, time_at_edge_s
from xbat_live.callbacks.xas_frames import CubeCutShortError, follow_cube
from xbat_live.callbacks.xas_products import XasProducts
from xbat_live.callbacks.xas_state import CubeMaps, Float, Float32, XasSettings, XasState, within
from xbat_live.devices import CubeEnd, CubeStart
from xbat_live.dose import format_gy
from xbat_live.dose.position import SamplePosition
from xbat_live.spectra import FrameAbsorbance, Threshold

logger = logging.getLogger(__name__)

_DIVERGED = 0.05
_MISFIT = 0.1
_MOST_OUTSIDE = 0.25


@dataclass
class _Followed:
    """A cube whose frames have been read."""

    start: CubeStart
    values: Float32
    energy_ev: Float
    stream: Any
    references: Any = None
    error: str = ""


@dataclass(frozen=True)
class XasResult:
    """What was found in one cube of the sample; see `xbat_live.devices.XasRecord` for the record."""

    number: int
    fields: dict[str, Any]
    alarm: str
    message: str
    row: int

    def record(self) -> dict[str, Any]:
        """Return values for the stream ``xas``."""
        return self.fields


class XasAnalysis(CallbackBase):
    """Follows cubes in a thread of its own: accumulators per frame, maps and curve after each cube, references in between.

    Parameters
    ----------
    settings
        What it is told.
    folder
        For the maps: where the frames are.
    """

    drift_um = begun_drift_um = (0.0, 0.0)
    position = SamplePosition()
    feedback_ok = True

    def __init__(self, settings: XasSettings, folder: Path) -> None:
        super().__init__()
        self.settings = settings
        self._state = XasState(settings)
        self._products = XasProducts(folder)
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="xas-analysis")
        self._lock = threading.Lock()
        self._abandoned: set[int] = set()
        self._closed = False
        self._pending = 0
        self._results: list[XasResult] = []
        self._current: _Followed | None = None
        self._last_kind = ""
        self._streams: dict[str, str] = {}
        self._locator, self._reader = FrameLocator("camera_image"), FrameReader()
        self._dark = RunningMean(DARKS_AVERAGED)

    # -- documents: only darks come as Events with frames ---------------------------------------------------------------

    def descriptor(self, doc: dict[str, Any]) -> None:
        """Remember which stream a descriptor is of."""
        self._streams[doc["uid"]] = doc["name"]

    def resource(self, doc: dict[str, Any]) -> None:
        """Remember a file."""
        self._locator.resource(doc)

    def datum(self, doc: dict[str, Any]) -> None:
        """Remember the place of a frame."""
        self._locator.datum(doc)

    def event(self, doc: dict[str, Any]) -> dict[str, Any]:
        """Take in a dark frame."""
        if self._streams[doc["descriptor"]] == "dark" and "camera_image" in doc["data"]:
            self._submit(self._take_dark, self._locator.locate(doc))
        return doc

    # -- what the plan asks -----------------------------------------------------------------------------------------------

    def latest(self) -> Future[Any]:
        """Raise: cubes have no verdict that a plan waits for."""
        raise RuntimeError("the analysis of energy sweeps gives no verdict on single frames; see pop_results")

    def begin_cube(self, cube: CubeStart) -> None:
        """Follow the frames of a cube that has begun."""
        self._submit(self._follow, cube)

    def end_cube(self, number: int, delivered: CubeEnd) -> None:
        """Work off a cube whose frames are complete."""
        self._submit(self._finish, number, delivered)

    def abandon_cube(self, number: int) -> None:
        """Forget a cube that was cut short."""
        self._abandoned.add(number)

    def pop_results(self) -> list[XasResult]:
        """Return what was found since the last call."""
        with self._lock:
            results, self._results = self._results, []
        return results

    def busy(self) -> bool:
        """Return True while a cube is not worked off."""
        return self._pending > 0

    def products(self, result: XasResult) -> XasProducts | None:
        """Return the device that gives the maps of a result."""
        return self._products.select(result.row) if result.row >= 0 else None

    def close(self) -> None:
        """Give up what is under way and close the files."""
        self._closed = True
        self._worker.shutdown(wait=True, cancel_futures=True)
        self._products.close()
        self._reader.close()

    # -- in the worker ----------------------------------------------------------------------------------------------------

    def _submit(self, function: Callable[..., None], *args: Any) -> None:
        with self._lock:
            self._pending += 1

        def run() -> None:
            try:
                function(*args)
            except Exception:  # trouble of the analysis does not end a run on a sample that cannot be replaced
                logger.exception("live analysis of energy sweeps: %s failed", function.__name__)
            finally:
                with self._lock:
                    self._pending -= 1

        self._worker.submit(run)

    def _take_dark(self, address: Any) -> None:
        self._dark.add(self._reader.read(address))
        self._reader.close()
        self._state.take_dark(self._dark.mean)

    def _follow(self, cube: CubeStart) -> None:
        self._current = None
        is_sample = cube.kind == "sample"
        absorbance = stream = None
        references = self._state.references.known
        error = ""
        if is_sample:
            try:
                absorbance, stream = self._state.absorbance, self._state.streaming()
            except ValueError as problem:
                error = str(problem)
        values: Float32 | None = None
        energies = np.full(cube.n_frames, np.nan)
        outside = 0

        def given_up() -> bool:
            return self._closed or cube.number in self._abandoned

        try:
            for number, frame, energy_ev in follow_cube(
                cube, given_up, spacing_angstrom=self.settings.spacing_angstrom
            ):
                energies[number] = energy_ev
                image = self._image(frame, energy_ev, absorbance)
                if image is None:  # beyond I0: that frame does not count
                    outside += 1
                    if values is not None:
                        values[number] = np.nan
                    continue
                if values is None:
                    values = np.full((cube.n_frames, *image.shape), np.nan, np.float32)
                values[number] = image
                if stream is not None:
                    stream.update(image, energy_ev)
        except CubeCutShortError as short:
            logger.warning("%s", short)
            return
        except ValueError as problem:
            error = error or str(problem)
        if outside > _MOST_OUTSIDE * cube.n_frames:
            error = (
                error
                or f"{outside} of {cube.n_frames} energies are outside those of the I0 cube; take I0 over the same range"
            )
        elif outside:
            logger.info("cube %d: %d of %d frames lie outside the energies of I0", cube.number, outside, cube.n_frames)
        if values is not None:
            self._current = _Followed(cube, values, energies, stream, references, error)

    def _image(self, frame: Any, energy_ev: float, absorbance: FrameAbsorbance | None) -> Float32 | None:
        """Return what is kept of a frame: counts, or absorbance; None when I0 does not reach to its energy."""
        if absorbance is None:
            return self._state.binned(frame)
        return absorbance(frame, energy_ev) if absorbance.covers(energy_ev) else None

    def _finish(self, number: int, delivered: CubeEnd) -> None:
        cube, self._current = self._current, None
        if cube is None or cube.start.number != number:
            return
        kind, before = cube.start.kind, self._last_kind
        self._last_kind = kind
        if kind == "i0":
            self._state.take_i0(cube.values, cube.energy_ev, anew=before != "i0")
        elif kind == "foil":
            self._state.take_foil(cube.values, cube.energy_ev, anew=before != "foil")
            self._state.calibrate()
        else:
            started = time.monotonic()
            try:
                if cube.error:
                    raise ValueError(cube.error)
                result = self._result(cube, delivered, started)
            except ValueError as error:
                fields = {"number": number, "place": cube.start.place, "alarm": "error"}
                result = XasResult(number, fields, "error", f"cube {number} cannot be analysed: {error}", -1)
            with self._lock:
                self._results.append(result)

    def _result(self, cube: _Followed, delivered: CubeEnd, started: float) -> XasResult:
        state, number, taken_ev = self._state, cube.start.number, cube.energy_ev
        seen = np.isfinite(cube.values.reshape(len(cube.values), -1)).any(axis=1)
        cube.values, cube.energy_ev = (
            (cube.values, cube.energy_ev) if seen.all() else (cube.values[seen], cube.energy_ev[seen])
        )
        state.learn(cube.values, cube.energy_ev)
        stream = cube.stream
        if cube.references is not state.references.known and (stream := state.streaming()) is not None:  # better ones
            for frame, energy_ev in zip(cube.values, cube.energy_ev, strict=True):
                if np.isfinite(frame).any():
                    stream.update(frame, float(energy_ev))
        maps = state.maps(cube.values, cube.energy_ev, stream)
        masks = state.rates()
        dose_gy = masks.rate_gy_s * delivered.place_time_s
        passed_s = time_at_edge_s(
            taken_ev, float(np.nanmedian(maps.edge_ev)), delivered.place_time_s, delivered.open_time_s
        )
        curve = edge_curve(maps.edge_ev, masks.rate_gy_s * passed_s)
        found = edge_threshold(curve)
        low, high = state.extremes()
        ends = masks.mask(low), masks.mask(high)
        fields = self._fields(maps, masks.rate_gy_s, dose_gy, ends, found)
        alarm, message = self._judge(fields, found, number)
        row = self._products.write(
            {
                "fractions": maps.fractions,
                "r_factor": maps.r_factor,
                "edge_ev": maps.edge_ev,
                "dose_gy": dose_gy,
                "curve_dose_gy": _padded(curve.dose_gy),
                "curve_edge_ev": _padded(curve.fraction),
            }
        )
        fields |= {
            "number": number,
            "place": cube.start.place,
            "frames": cube.start.n_frames,
            "place_time_s": delivered.place_time_s,
            "alarm": alarm,
            "elapsed_s": time.monotonic() - started,
        }
        return XasResult(number, fields, alarm, message, row)

    @staticmethod
    def _fields(
        maps: CubeMaps, rate_gy_s: Float, dose_gy: Float, ends: tuple[Any, Any], found: Threshold
    ) -> dict[str, Any]:
        low, high = ends

        def fractions(mask: Any) -> str:
            return json.dumps([round(within(part, mask), 5) for part in maps.fractions[: maps.components]])

        return {
            "masked": maps.masked,
            "components": maps.components,
            "low_rate_gy_s": within(rate_gy_s, low),
            "high_rate_gy_s": within(rate_gy_s, high),
            "low_dose_gy": within(dose_gy, low),
            "high_dose_gy": within(dose_gy, high),
            "low_progress": within(maps.progress, low),
            "high_progress": within(maps.progress, high),
            "low_edge_ev": within(maps.edge_ev, low),
            "high_edge_ev": within(maps.edge_ev, high),
            "low_fractions": fractions(low),
            "high_fractions": fractions(high),
            "r_factor": float(np.nanmedian(maps.r_factor)) if maps.components else math.nan,
            "threshold_gy": found.value_gy,
            "threshold_low_gy": found.interval_gy[0] if found.found else math.nan,
            "threshold_high_gy": found.interval_gy[1] if found.found else math.nan,
        }

    @staticmethod
    def _judge(fields: dict[str, Any], found: Threshold, number: int) -> tuple[str, str]:
        apart = fields["low_progress"] - fields["high_progress"]
        if found.found:
            between = " to ".join(format_gy(end) for end in found.interval_gy)
            return "threshold", (
                f"cube {number}: pixels with more than {format_gy(found.value_gy)} ({between}) stay behind; the highest dose is "
                f"{format_gy(fields['high_dose_gy'])}"
            )
        if apart > _DIVERGED:
            return "diverged", f"cube {number}: pixels of high dose are {apart:.2f} behind those of low dose"
        if fields["r_factor"] > _MISFIT:
            return (
                "misfit",
                f"cube {number}: the component spectra leave {fields['r_factor']:.2f} of the signal unexplained",
            )
        return "", ""


def _padded(values: Float) -> Float:
    return np.concatenate([values, np.full(BINS - values.size, np.nan)])
