"""From maps in sample coordinates to transmission on the sensor: sub-pixel exact, in cached stages.

1. window of the sample's maps around the field: blurred by the zone plate, moved by breathing (per field and state);
2. phase ramp to the true position, Beer-Lambert with the local state of charge (per position);
3. vibration, as a factor on the spectrum of the transmission (per blurred frame).

A shift is a pure phase ramp, so no position is blurred more than another.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from xbat_live.sim.cell import Cell
from xbat_live.sim.instabilities import Breathing, Vibration
from xbat_live.sim.sample import ElectrodeSample
from xbat_live.sim.settings import TwinSettings
from xbat_live.sim.truth import Roi
from xbat_live.sim.xanes import NickelOxide

__all__ = ["ElectrodeScene", "Scene", "SceneState", "ShiftedWindow", "Transmission"]

_Float32 = npt.NDArray[np.float32]

PAD_PX = 40  # taper 10 + margin 8 + half the longest vibration 20
_TAPER_PX = 10
_MARGIN_PX = 8.0
_WINDOWS_KEPT = 4
POSITION_TOLERANCE_PX = 0.02
_SOC_TOLERANCE = 0.004
_CRACK_TOLERANCE = 0.03
_CRACK_CLOSED = 0.35  # share of the crack volume that is open in a pristine particle
_CRACK_PER_CYCLE = 0.3


@dataclass(frozen=True)
class SceneState:
    """What a noise-free image depends on: field centre (y, x) in sample um, optics, electrochemistry, sample frame."""

    position_yx_um: tuple[float, float]
    energy_ev: float
    soc_map: npt.NDArray[np.float64]
    soc_mean: float
    throughput: float
    z_um: float = 0.0
    theta_deg: float = 0.0
    sample_index: int = 0


class Transmission:
    """Transmission on the sensor, with a border so that it can be blurred without edge effects."""

    def __init__(self, padded: _Float32, shape: tuple[int, int]) -> None:
        self._padded = padded
        self._shape = shape
        self.sharp = self._crop(padded)

    def _crop(self, padded: _Float32) -> _Float32:
        return padded[PAD_PX : PAD_PX + self._shape[0], PAD_PX : PAD_PX + self._shape[1]]

    def blurred(self, vibration: Vibration) -> _Float32:
        """Transmission averaged over the motion of one exposure, float32 (rows, columns)."""
        import scipy.fft

        spectrum = scipy.fft.rfft2(_make_periodic(self._padded))
        spectrum *= vibration.transfer(*_frequencies(self._padded.shape))
        return self._crop(scipy.fft.irfft2(spectrum, s=self._padded.shape))


class Scene(Protocol):
    """What the camera looks at."""

    def transmission(self, state: SceneState, roi: Roi) -> Transmission:
        """Return the transmission on `roi`; the same object while `state` is unchanged within tolerances."""


def _fast_length(length: int) -> int:
    """Next FFT length >= `length` with factors 2, 3, 5, 7 only, even."""
    length += length % 2
    while True:
        rest = length
        for factor in (2, 3, 5, 7):
            while rest % factor == 0:
                rest //= factor
        if rest == 1:
            return length
        length += 2


def _frequencies(shape: tuple[int, ...]) -> tuple[_Float32, _Float32]:
    """Frequencies in cycles/px of an rfft2 over `shape`: (ny, 1) and (1, nx//2 + 1)."""
    fy = np.fft.fftfreq(shape[0]).astype(np.float32)[:, None]
    return fy, np.fft.rfftfreq(shape[1]).astype(np.float32)[None, :]


def _make_periodic(image: _Float32) -> _Float32:
    """Crossfade each edge with the opposite one over 10 px, so that the transform sees no step."""
    image = image.copy()
    weight = (np.arange(_TAPER_PX, dtype=np.float32) + 0.5) / (2 * _TAPER_PX)
    for _ in range(2):
        first, last = image[:_TAPER_PX].copy(), image[-_TAPER_PX:][::-1].copy()
        keep = (0.5 + weight)[:, None]
        image[:_TAPER_PX] = keep * first + (1 - keep) * last
        image[-_TAPER_PX:] = (keep * last + (1 - keep) * first)[::-1]
        image = image.T
    return np.ascontiguousarray(image)


def first_index_px(state: SceneState, roi: Roi, sensor_yx: tuple[int, int], pixel_um: float) -> tuple[float, float]:
    """Grid coordinate (y, x), in pixels from the sample's centre, of the first pixel of `roi`."""
    y_um, x_um = state.position_yx_um
    return (
        y_um / pixel_um + roi.min_y - (sensor_yx[0] - 1) / 2,
        x_um / pixel_um + roi.min_x - (sensor_yx[1] - 1) / 2,
    )


class ShiftedWindow:
    """A window of a map on the sample grid that can be read at any sub-pixel position within a margin.

    Parameters
    ----------
    origin_yx
        Grid index of the window's first pixel.
    shape
        Its size, as `window_shape` gives it.
    """

    def __init__(self, origin_yx: tuple[int, int], image: _Float32) -> None:
        import scipy.fft

        self.origin_yx = origin_yx
        self.shape = image.shape
        self._spectrum = scipy.fft.rfft2(_make_periodic(image))

    @staticmethod
    def geometry(first_yx_px: tuple[float, float], roi: Roi) -> tuple[tuple[int, int], tuple[int, int]]:
        """Origin and shape of the window to make for a field whose first pixel is at `first_yx_px`."""
        origin = (math.floor(first_yx_px[0] + 0.5) - PAD_PX, math.floor(first_yx_px[1] + 0.5) - PAD_PX)
        return origin, (ShiftedWindow.length(roi.size_y), ShiftedWindow.length(roi.size_x))

    @staticmethod
    def length(field_px: int) -> int:
        """Length of a window for a field of `field_px` pixels."""
        return _fast_length(field_px + 2 * PAD_PX)

    def holds(self, first_yx_px: tuple[float, float], roi: Roi) -> bool:
        """Whether a field starting at `first_yx_px` can be read from this window."""
        dy, dx = self._offset(first_yx_px)
        fits = self.shape == (self.length(roi.size_y), self.length(roi.size_x))
        return fits and abs(dy) <= _MARGIN_PX and abs(dx) <= _MARGIN_PX

    def read(self, first_yx_px: tuple[float, float]) -> _Float32:
        """Return the window shifted so that its pixel (PAD_PX, PAD_PX) is at `first_yx_px`."""
        import scipy.fft

        dy, dx = self._offset(first_yx_px)
        fy, fx = _frequencies(self.shape)
        ramp_y = np.exp((2j * np.pi * dy) * fy).astype(np.complex64)
        ramp_x = np.exp((2j * np.pi * dx) * fx).astype(np.complex64)
        return scipy.fft.irfft2(self._spectrum * ramp_y * ramp_x, s=self.shape)

    def _offset(self, first_yx_px: tuple[float, float]) -> tuple[float, float]:
        return first_yx_px[0] - self.origin_yx[0] - PAD_PX, first_yx_px[1] - self.origin_yx[1] - PAD_PX


@dataclass
class _Field:
    """A cached window and the state it was made for."""

    window: ShiftedWindow
    breathing_px: float
    crack: float
    sigma_px: float


@dataclass
class _Rendered:
    """The last transmission and the state it was made for."""

    state: SceneState
    roi: Roi
    image: Transmission
    soc_sensitive: bool


class ElectrodeScene:
    """Renders the electrode. Not thread-safe: the twin holds its render lock.

    Parameters
    ----------
    settings
        Optics and sample.
    cell
        Attenuation of the layers around the electrode.
    """

    def __init__(self, settings: TwinSettings, cell: Cell) -> None:
        self._settings = settings
        self._cell = cell
        self._sample = ElectrodeSample(settings)
        self._breathing = Breathing(settings)
        self._oxide: NickelOxide | None = None
        self._fields: OrderedDict[tuple[int, int, int, int], _Field] = OrderedDict()
        self._last: _Rendered | None = None

    def transmission(self, state: SceneState, roi: Roi) -> Transmission:
        """See `Scene`."""
        last = self._last
        if last is not None and last.roi == roi and self._same(last, state):
            return last.image
        pixel_um = self._settings.pixel_size_um
        first = first_index_px(state, roi, self._settings.sensor_yx, pixel_um)
        _, shape = ShiftedWindow.geometry(first, roi)
        y_um, x_um = ((start - PAD_PX + np.arange(count)) * pixel_um for start, count in zip(first, shape, strict=True))
        rows, columns = self._sample.coverage(y_um, x_um)
        if rows.max() == 0.0 or columns.max() == 0.0:  # sample out of the beam
            image = Transmission(np.ones(shape, np.float32), (roi.size_y, roi.size_x))
            self._last = _Rendered(state, roi, image, False)
            return image
        thickness = self._field(state, first, roi).window.read(first)
        np.maximum(thickness, 0.0, out=thickness)
        mu, sensitive = self._attenuation(state, y_um, x_um)
        thickness *= mu
        depth = np.float32(self._cell.optical_depth(state.energy_ev))
        if rows.min() == columns.min() == 1.0:
            thickness += depth
        else:
            thickness += (depth * rows)[:, None] * columns
        thickness *= np.float32(-1.0 / max(abs(math.cos(math.radians(state.theta_deg))), 0.1))
        np.exp(thickness, out=thickness)
        image = Transmission(thickness, (roi.size_y, roi.size_x))
        self._last = _Rendered(state, roi, image, sensitive)
        return image

    def _same(self, last: _Rendered, state: SceneState) -> bool:
        old = last.state
        moved_um = max(abs(a - b) for a, b in zip(old.position_yx_um, state.position_yx_um, strict=True))
        soc_tolerance = (
            _SOC_TOLERANCE if last.soc_sensitive else POSITION_TOLERANCE_PX / max(self._settings.breathing_px, 0.02)
        )
        return (
            moved_um < POSITION_TOLERANCE_PX * self._settings.pixel_size_um
            and abs(old.energy_ev - state.energy_ev) < 0.02
            and abs(old.soc_mean - state.soc_mean) < soc_tolerance
            and abs(self._crack(old) - self._crack(state)) < _CRACK_TOLERANCE
            and abs(self._sigma_px(old) - self._sigma_px(state)) < 0.02
            and abs(old.theta_deg - state.theta_deg) < 0.1
        )

    def _sigma_px(self, state: SceneState) -> float:
        return math.hypot(self._settings.psf_sigma_px, self._settings.defocus_px_per_um * state.z_um)

    @staticmethod
    def _crack(state: SceneState) -> float:
        """Open share of the cracks: grows with the charge that went through."""
        return min(1.0, _CRACK_CLOSED + _CRACK_PER_CYCLE * state.throughput)

    def _attenuation(
        self, state: SceneState, y_um: npt.NDArray[np.floating], x_um: npt.NDArray[np.floating]
    ) -> tuple[_Float32, bool]:
        """Return the attenuation of the oxide in 1/um on the window, (1, 1) where it does not depend on the charge."""
        if self._oxide is None:
            self._oxide = NickelOxide()
        values = self._oxide.mu_per_um(state.energy_ev, np.linspace(0.0, 1.0, 33))
        if np.ptp(values) < 1e-3 * values.mean():
            return np.full((1, 1), np.interp(state.soc_mean, np.linspace(0, 1, 33), values), np.float32), False
        cells = np.interp(state.soc_map, np.linspace(0.0, 1.0, 33), values)
        sizes = (self._settings.sample_size_um[1], self._settings.sample_size_um[0])
        weights = [
            _hat_weights(axis, size, count) for axis, size, count in zip((y_um, x_um), sizes, cells.shape, strict=True)
        ]
        return weights[0] @ cells.astype(np.float32) @ weights[1].T, True

    def _field(self, state: SceneState, first: tuple[float, float], roi: Roi) -> _Field:
        breathing_px, crack, sigma_px = (
            self._breathing.scale_px(state.soc_mean),
            self._crack(state),
            self._sigma_px(state),
        )
        for key, field in list(self._fields.items()):
            if not field.window.holds(first, roi):
                continue
            if (
                abs(field.breathing_px - breathing_px) < POSITION_TOLERANCE_PX
                and abs(field.crack - crack) < _CRACK_TOLERANCE
                and abs(field.sigma_px - sigma_px) < 0.02
            ):
                self._fields.move_to_end(key)
                return field
            del self._fields[key]
        origin, shape = ShiftedWindow.geometry(first, roi)
        field = _Field(
            ShiftedWindow(origin, self._make_map(origin, shape, breathing_px, crack, sigma_px)),
            breathing_px,
            crack,
            sigma_px,
        )
        self._fields[(*origin, *shape)] = field
        while len(self._fields) > _WINDOWS_KEPT:
            self._fields.popitem(last=False)
        return field

    def _make_map(
        self, origin: tuple[int, int], shape: tuple[int, int], breathing_px: float, crack: float, sigma_px: float
    ) -> _Float32:
        """Thickness in um on a window: cracks open, zone-plate blur, displaced by breathing.

        The displacement ``t(x - u(x))`` is a Taylor series in u of the band-limited map: derivatives are exact in
        Fourier space, and its order follows the largest displacement.
        """
        import scipy.fft

        thickness, cracks = self._sample.window(*origin, *shape)
        thickness -= np.float32(crack) * cracks
        spectrum = scipy.fft.rfft2(_make_periodic(thickness))
        fy, fx = _frequencies(shape)
        factor = np.float32(-2 * math.pi**2 * sigma_px**2)
        spectrum *= np.exp(factor * fy * fy) * np.exp(factor * fx * fx)
        blurred: _Float32 = scipy.fft.irfft2(spectrum, s=shape)
        size_px = abs(breathing_px)
        if size_px < POSITION_TOLERANCE_PX / 2:
            return blurred
        order = 1 if size_px < 0.05 else 2 if size_px < 0.2 else 3 if size_px <= 0.55 else 5
        pixel_um = self._settings.pixel_size_um
        y_um, x_um = ((start + np.arange(count)) * pixel_um for start, count in zip(origin, shape, strict=True))
        uy, ux = (np.float32(-breathing_px) * component for component in self._breathing.pattern(y_um, x_um))
        along_y, along_x = (2j * np.pi * fy).astype(np.complex64), (2j * np.pi * fx).astype(np.complex64)
        for total in range(1, order + 1):
            for n in range(total + 1):
                m = total - n
                derivative = scipy.fft.irfft2(spectrum * along_y**n * along_x**m, s=shape)
                derivative *= np.float32(1.0 / (math.factorial(n) * math.factorial(m)))
                for displacement, power in ((uy, n), (ux, m)):
                    for _ in range(power):
                        derivative *= displacement
                blurred += derivative
        return blurred


def _hat_weights(axis_um: npt.NDArray[np.floating], size_um: float, cells: int) -> _Float32:
    """Linear interpolation from cell centres to `axis_um` as a matrix (len(axis_um), cells)."""
    place = np.clip((axis_um + size_um / 2) / size_um * cells - 0.5, 0.0, cells - 1.0)
    return np.maximum(1.0 - np.abs(place[:, None] - np.arange(cells)), 0.0).astype(np.float32)
