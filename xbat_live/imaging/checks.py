"""Checks a frame must pass before its content is looked at."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from xbat_live.imaging.correction import Corrector

if TYPE_CHECKING:
    from xbat_live.imaging.correction import Corrected
    from xbat_live.imaging.spectrum import CropWindow, PolarPower

SATURATED_FRACTION = 1e-3
SHUTTER_CLOSED_TRANSMISSION = 0.01
UNDEREXPOSED_TRANSMISSION = 0.03
DEAD_ROW_RATIO = 0.1
DEAD_ROWS = 2
STUCK_STRIDE = 16
LEAST_STRUCTURE = 5.0
"""Standard deviations of the power above the noise."""
FLOOR_ERROR = 0.03
"""Relative, of the noise floor."""


@dataclass(frozen=True)
class FrameCheck:
    """Result of the checks.

    Attributes
    ----------
    ok
        True when the frame may be analysed.
    kind
        ``ok``, or ``wrong shape``, ``wrong dtype``, ``nan``, ``duplicate``, ``saturated``, ``shutter closed``, ``underexposed``,
        ``dead rows``, ``blank``.
    reason
        One sentence with value, unit and limit; empty when ok.
    """

    ok: bool
    kind: str
    reason: str


PASSED = FrameCheck(True, "ok", "")


def _failed(kind: str, reason: str) -> FrameCheck:
    return FrameCheck(False, kind, reason)


def check_raw(
    frame: ArrayLike,
    shape: tuple[int, int],
    *,
    saturation: int = 65535,
    previous_rows: NDArray[np.generic] | None = None,
    stride: int = 1,
) -> FrameCheck:
    """Check what can be seen without references.

    Parameters
    ----------
    frame
        Counts as read from the camera.
    shape
        Expected (ny, nx), px.
    saturation
        Full scale of the camera, counts; a frame with more than 0.1 % of its pixels there is rejected.
    previous_rows, stride
        Every `stride`-th row of the frame before; bit-identical ones mean a duplicate (shot noise never repeats).
    """
    array = np.asarray(frame)
    if array.shape != shape:
        return _failed(
            "wrong shape", f"frame of {array.shape} px, expected {shape} px: camera region or binning was changed"
        )
    if array.dtype.kind not in "uif":
        return _failed("wrong dtype", f"frame of dtype {array.dtype}, expected integer or float counts")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        return _failed("nan", f"{int((~np.isfinite(array)).sum())} px are NaN or infinite")
    if (
        previous_rows is not None
        and previous_rows.dtype == array.dtype
        and np.array_equal(previous_rows[0], array[0])
        and np.array_equal(previous_rows, array[::stride])
    ):
        return _failed("duplicate", "bit-identical to the frame before: the camera or its file handed out an old frame")
    if array.max() >= saturation:
        fraction = float(np.count_nonzero(array >= saturation)) / array.size
        if fraction > SATURATED_FRACTION:
            return _failed(
                "saturated",
                f"{100 * fraction:.2g} % of the pixels at full scale ({saturation} counts), "
                f"limit {100 * SATURATED_FRACTION:g} %: expose less",
            )
    return PASSED


def check_light(frame: NDArray[np.generic], corrected: Corrected, corrector: Corrector) -> FrameCheck:
    """Check that beam arrived everywhere; needs a flat (without one only a frame without any light is found).

    Parameters
    ----------
    frame
        Counts, shape (ny, nx).
    corrected, corrector
        The corrected frame and what corrected it.
    """
    if corrector.has_flat:
        percent = 100 * corrected.transmission
        if corrected.transmission < SHUTTER_CLOSED_TRANSMISSION:
            return _failed(
                "shutter closed",
                f"{percent:.2g} % of the flat's light, limit {100 * SHUTTER_CLOSED_TRANSMISSION:g} %: shutter closed or beam lost",
            )
        if corrected.transmission < UNDEREXPOSED_TRANSMISSION:
            return _failed(
                "underexposed",
                f"{percent:.2g} % of the flat's light, limit {100 * UNDEREXPOSED_TRANSMISSION:g} %: beam unstable?",
            )
    elif corrected.light <= 1.0:
        return _failed("shutter closed", f"{corrected.light:.2g} counts/px above the dark: shutter closed or beam lost")
    rows = corrected.row_light
    typical = float(np.nanmedian(rows)) if np.isfinite(rows).any() else 0.0
    # Shot noise never makes all neighbours equal: such a row is stuck.
    stuck = (frame[:, :-1:STUCK_STRIDE] == frame[:, 1::STUCK_STRIDE]).all(1)
    binned_stuck = stuck[: len(rows) * corrector.bin].reshape(len(rows), corrector.bin).any(1)
    with np.errstate(invalid="ignore"):
        dead = np.isfinite(rows) & ((rows < DEAD_ROW_RATIO * typical) | binned_stuck)
    count = int(dead.sum()) * corrector.bin
    if count >= DEAD_ROWS:
        first = int(np.flatnonzero(dead)[0]) * corrector.bin
        return _failed(
            "dead rows",
            f"about {count} rows without signal, the first near row {first}: read-out or transfer was cut short",
        )
    return PASSED


def check_frame(
    frame: ArrayLike,
    dark: ArrayLike,
    flat: ArrayLike,
    *,
    saturation: int = 65535,
    previous: NDArray[np.generic] | None = None,
) -> FrameCheck:
    """Check one frame against its references; `FramePipeline` does the same without repeated work.

    Parameters
    ----------
    frame, dark, flat
        Counts, shape (ny, nx).
    saturation
        Full scale of the camera, counts.
    previous
        The frame before, shape (ny, nx), counts: a bit-identical one is a ``duplicate``.

    Raises
    ------
    ValueError
        When flat or dark themselves are unusable.
    """
    shape = np.asarray(flat).shape
    corrector = Corrector((shape[0], shape[1]), 2)
    corrector.set_dark(dark)
    corrector.set_flat(flat)
    array = np.asarray(frame)
    raw = check_raw(array, corrector.shape, saturation=saturation, previous_rows=previous)
    return raw if not raw.ok else check_light(array, corrector.correct(array), corrector)


def check_structure(polar: PolarPower, window: CropWindow, mode_correlation: float) -> FrameCheck:
    """Check that there is more than noise in a spectrum: ``blank`` otherwise.

    Parameters
    ----------
    polar, window, mode_correlation
        Power of a crop, its geometry, and neighbouring modes that share one independent value.
    """
    modes = window.modes[:10]
    total = float(modes.sum())
    excess = float(((polar.power[:10] / max(polar.noise, 1e-30) - 1) * modes).sum())
    # The floor's own error included
    strength = excess / float(np.sqrt(total * mode_correlation + (FLOOR_ERROR * total) ** 2))
    if strength >= LEAST_STRUCTURE:
        return PASSED
    return _failed(
        "blank",
        f"no structure: power {strength:.1f} standard deviations above the noise, {LEAST_STRUCTURE:g} needed; "
        "sample out of the beam, empty field or beam lost",
    )
