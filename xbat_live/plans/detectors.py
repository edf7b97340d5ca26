"""How long a detector exposes, and how its exposure is set, whatever detector it is."""

from __future__ import annotations

from typing import Any

from bluesky.utils import MsgGenerator

from xbat_live.devices import TxmBeamline
from xbat_live.plans.guard import DoseGuard
from xbat_live.plans.messages import put, read

_EXPOSURE_NAMES = ("exposure_time", "preset_time", "count_time", "exposure_s", "preset_real_time")
_SAME = 1e-3


def acquire_time_of(device: Any) -> Any:
    """Return the signal of an areaDetector's exposure time, or None."""
    return getattr(getattr(device, "cam", None), "acquire_time", None)


def state_of(device: Any) -> Any:
    """Return the signal of an areaDetector's state (``DetectorState_RBV``), or None."""
    return getattr(getattr(device, "cam", None), "detector_state", None)


def frame_exposure_of(guard: DoseGuard, camera: Any) -> MsgGenerator[float]:
    """Plan stub: return the exposure that the plan wants of one frame of an areaDetector, s."""
    set_s = float((yield from read(acquire_time_of(camera))))
    nominal_s, window_s = guard.windows_s.get(camera.name, (set_s, set_s))
    return nominal_s if abs(set_s - window_s) <= _SAME * window_s else set_s


def images_of(camera: Any) -> MsgGenerator[int]:
    """Plan stub: return how many frames a trigger of an areaDetector gives."""
    signal = getattr(camera.cam, "num_images", None)
    return 1 if signal is None else max(int((yield from read(signal))), 1)


def exposure_of(guard: DoseGuard, device: Any) -> MsgGenerator[float | None]:
    """Plan stub: return how long a trigger of `device` needs the beam, s; None for a device that does not say.

    An areaDetector needs it for all its images; other detectors say it by one of the usual names.
    """
    if acquire_time_of(device) is not None:
        each_s = yield from frame_exposure_of(guard, device)
        images = yield from images_of(device)
        if images == 1:
            return each_s
        return images * max(each_s, float((yield from read(device.cam.acquire_period))))
    for name in _EXPOSURE_NAMES:
        value = getattr(device, name, None)
        if hasattr(value, "read"):
            value = yield from read(value)
        if isinstance(value, int | float) and value > 0:
            return float(value)
    return None


def set_acquire_time(guard: DoseGuard, camera: Any, exposure_s: float, *, lead_s: float) -> MsgGenerator[None]:
    """Plan stub: let `camera` integrate for `exposure_s` and `lead_s`, s; the guard remembers which of it is exposure."""
    signal, window_s = acquire_time_of(camera), exposure_s + lead_s
    if lead_s > 0:
        guard.windows_s[camera.name] = (exposure_s, window_s)
    else:
        guard.windows_s.pop(camera.name, None)
    if abs(float((yield from read(signal))) - window_s) > _SAME * window_s:
        yield from put(signal, window_s)


def prepare_exposures(beamline: TxmBeamline, guard: DoseGuard, exposure_s: float) -> MsgGenerator[None]:
    """Plan stub: set the camera for exposures of `exposure_s`, s, so that darks integrate as long as the frames will."""
    lead_s = guard.lead_time_s if guard.is_timed(beamline) else 0.0
    yield from set_acquire_time(guard, beamline.camera, exposure_s, lead_s=lead_s)


def restore_exposures(guard: DoseGuard, *cameras: Any) -> MsgGenerator[None]:
    """Plan stub: give cameras back the exposure time that was theirs before the guard made it longer."""
    for camera in cameras:
        if camera.name in guard.windows_s:
            yield from set_acquire_time(guard, camera, guard.windows_s[camera.name][0], lead_s=0.0)
