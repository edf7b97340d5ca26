"""Pictures of frames for people: scaled to 8 bit, JPEG; made in a thread of their own and only when somebody looks."""

from __future__ import annotations

import io
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xbat_live.imaging import optical_density
from xbat_live.live.wire import VIEWS

LARGEST_PX = 1024
QUALITY = 80
_REFERENCES = 8
_LOW, _HIGH = 0.002, 0.998
_STRIDE = 4

Image = NDArray[Any]


@dataclass(frozen=True)
class FrameView:
    """A frame as the analysis has it; its arrays are never written to.

    Attributes
    ----------
    frame
        Counts, shape (ny, nx).
    flat, dark
        Means of flats and darks of the same shape; None: none yet.
    key
        Field of view (spot, field, energy): frames of one key are registered against each other.
    shift_yx_px
        Shift of the content against the first accepted frame of this key, unbinned px; None: not measured.
    pixel_size_um
        Unbinned pixel in the sample plane, um.
    facts
        For the header: number of the frame, verdict, reason, dose, energy, time.
    """

    frame: Image
    key: str
    pixel_size_um: float
    flat: Image | None = None
    dark: Image | None = None
    shift_yx_px: tuple[float, float] | None = None
    accepted: bool = False
    facts: dict[str, Any] | None = None


class Previews:
    """Renders views of frames; keeps the reference of the last fields of view. For use in one thread."""

    def __init__(self) -> None:
        self._references: OrderedDict[str, Image] = OrderedDict()
        self._cache: tuple[FrameView, Image] | None = None

    def remember(self, view: FrameView) -> None:
        """Keep the first accepted frame of a field of view: the others are aligned with it."""
        if view.key in self._references:
            self._references.move_to_end(view.key)
        elif view.accepted:
            self._references[view.key] = self._density(view)
            if len(self._references) > _REFERENCES:
                self._references.popitem(last=False)

    def render(self, view: FrameView, what: str) -> tuple[dict[str, Any], bytes]:
        """Return the header's facts of the picture and the picture as JPEG.

        Parameters
        ----------
        what
            One of `VIEWS`: counts; optical density moved to where the first accepted frame of its field has it; the difference of
            the two, blue to red about zero; power spectrum of the middle, logarithmic.

        Raises
        ------
        ValueError
            Unknown view.
        """
        if what == "raw":
            return _grey(view.frame, view.pixel_size_um, "counts")
        if what == "fft":
            return _grey(power_spectrum(view.frame), 0.0, "log10 power")
        if what == "aligned":
            return _grey(moved(self._density(view), view.shift_yx_px), view.pixel_size_um, "optical density")
        if what == "difference":
            reference = self._references.get(view.key)
            density = moved(self._density(view), view.shift_yx_px)
            if reference is None or reference.shape != density.shape:
                return _grey(density, view.pixel_size_um, "optical density", note="no accepted frame of this field yet")
            return _diverging(density - reference, view.pixel_size_um)
        raise ValueError(f"view {what!r} is unknown; known: {', '.join(VIEWS)}")

    def _density(self, view: FrameView) -> Image:
        if self._cache is None or self._cache[0] is not view:
            frame = np.asarray(view.frame, np.float32)
            dark = np.zeros_like(frame) if view.dark is None or view.dark.shape != frame.shape else view.dark
            flat = view.flat
            if flat is None or flat.shape != frame.shape:
                flat = np.full_like(frame, float(frame[::_STRIDE, ::_STRIDE].max()))
            self._cache = (view, optical_density(frame, flat, dark))
        return self._cache[1]


def moved(image: Image, shift_yx_px: tuple[float, float] | None) -> Image:
    """Return `image` with its content shifted back by whole pixels; what came in at the edges is NaN."""
    if shift_yx_px is None or not np.isfinite(shift_yx_px).all():
        return image
    dy, dx = (-round(shift) for shift in shift_yx_px)
    if dy == 0 and dx == 0:
        return image
    result = np.full_like(image, np.nan)
    ny, nx = image.shape
    if abs(dy) < ny and abs(dx) < nx:
        result[max(dy, 0) : ny + min(dy, 0), max(dx, 0) : nx + min(dx, 0)] = image[
            max(-dy, 0) : ny + min(-dy, 0), max(-dx, 0) : nx + min(-dx, 0)
        ]
    return result


def power_spectrum(frame: Image, size: int = 256) -> Image:
    """Return log10 of the power spectrum of the middle of a frame, zero frequency in the centre; at most `size` x `size`."""
    ny, nx = (min(size, n) for n in frame.shape)
    y, x = (frame.shape[0] - ny) // 2, (frame.shape[1] - nx) // 2
    part = np.asarray(frame[y : y + ny, x : x + nx], np.float32)
    window = np.outer(np.hanning(ny), np.hanning(nx)).astype(np.float32)
    spectrum = np.fft.fftshift(np.fft.fft2((part - part.mean()) * window))
    power: Image = np.log10(np.abs(spectrum) ** 2 + 1.0).astype(np.float32)
    return power


def _smaller(image: Image) -> tuple[Image, int]:
    factor = -(-max(image.shape) // LARGEST_PX)
    if factor == 1:
        return image, 1
    ny, nx = (n // factor * factor for n in image.shape)
    mean = np.asarray(image[:ny, :nx], np.float32).reshape(ny // factor, factor, nx // factor, factor).mean(axis=(1, 3))
    return mean, factor


def _limits(image: Image) -> tuple[float, float]:
    low, high = _quantiles(image)
    return low, high if high > low else low + 1.0


def _quantiles(image: Image) -> tuple[float, float]:
    sample = image[::_STRIDE, ::_STRIDE]
    if sample.dtype.kind == "f":
        sample = sample[np.isfinite(sample)]
    if not sample.size:
        return 0.0, 0.0
    ordered = np.partition(sample, (int(_LOW * (sample.size - 1)), int(_HIGH * (sample.size - 1))), axis=None)
    return float(ordered[int(_LOW * (sample.size - 1))]), float(ordered[int(_HIGH * (sample.size - 1))])


def _grey(image: Image, pixel_size_um: float, unit: str, note: str = "") -> tuple[dict[str, Any], bytes]:
    shown, factor = _smaller(image)
    low, high = _limits(shown)
    if shown.dtype == np.uint16:  # by a table: four times as fast as arithmetic on a million pixels
        table = ((np.arange(2**16, dtype=np.float32) - low) * (255.0 / (high - low))).clip(0, 255).astype(np.uint8)
        facts = _facts(image, shown, pixel_size_um * factor, (low, high), unit, note)
        return facts, _jpeg(np.take(table, shown))
    scaled = shown.astype(np.float32)
    scaled -= low
    scaled *= 255.0 / (high - low)
    np.nan_to_num(scaled, copy=False, nan=0.0)
    np.clip(scaled, 0, 255, out=scaled)
    return _facts(image, shown, pixel_size_um * factor, (low, high), unit, note), _jpeg(scaled.astype(np.uint8))


def _diverging(image: Image, pixel_size_um: float) -> tuple[dict[str, Any], bytes]:
    shown, factor = _smaller(image)
    low, high = _quantiles(shown)
    most = max(abs(low), abs(high), 1e-6)
    scaled = np.nan_to_num(shown * (127.0 / most) + 128.0, nan=128.0).clip(0, 255).astype(np.uint8)
    facts = _facts(image, shown, pixel_size_um * factor, (-most, most), "optical density")
    return facts | {"colours": "blue less, red more absorbing"}, _jpeg(_BLUE_RED[scaled])


def _facts(  # noqa: PLR0917
    image: Image, shown: Image, pixel_um: float, scale: tuple[float, float], unit: str, note: str = ""
) -> dict[str, Any]:
    return {
        "ny": shown.shape[0],
        "nx": shown.shape[1],
        "pixel_um": pixel_um,
        "full_ny": image.shape[0],
        "full_nx": image.shape[1],
        "low": scale[0],
        "high": scale[1],
        "unit": unit,
        "note": note,
    }


def _jpeg(pixels: NDArray[np.uint8]) -> bytes:
    from PIL import Image as Pillow

    out = io.BytesIO()
    Pillow.fromarray(np.ascontiguousarray(pixels)).save(out, "JPEG", quality=QUALITY)
    return out.getvalue()


def _ramp() -> NDArray[np.uint8]:
    """Blue, white, red, shape (256, 3): told apart with every common colour blindness."""
    ends = np.array([[33, 102, 172], [247, 247, 247], [178, 24, 43]], float)
    at = np.linspace(0, 2, 256)
    return np.stack([np.interp(at, (0, 1, 2), ends[:, i]) for i in range(3)], axis=1).astype(np.uint8)


_BLUE_RED = _ramp()
