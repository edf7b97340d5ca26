"""Small PNG pictures without a library: eight bits, grey or RGB."""

from __future__ import annotations

import base64
import struct
import zlib

import numpy as np
from numpy.typing import NDArray

_STOPS = np.array(  # viridis, sampled: even in lightness, safe for the colour-blind
    [(68, 1, 84), (65, 68, 135), (42, 120, 142), (34, 168, 132), (122, 209, 81), (253, 231, 37)], float
)


def png(pixels: NDArray[np.uint8]) -> bytes:
    """Return `pixels`, shape (ny, nx) or (ny, nx, 3) uint8, as a PNG file (ISO/IEC 15948)."""
    rows, columns = pixels.shape[:2]
    raw = b"".join(b"\0" + row.tobytes() for row in np.ascontiguousarray(pixels))

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", columns, rows, 8, 2 if pixels.ndim == 3 else 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(raw, 9)) + chunk(b"IEND", b"")


def data_uri(pixels: NDArray[np.uint8]) -> str:
    """Return a picture as the address of itself."""
    return "data:image/png;base64," + base64.b64encode(png(pixels)).decode()


def colours(fraction: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Return an RGB colour, shape (..., 3), for every number from 0 to 1; NaN is white."""
    place = np.clip(np.nan_to_num(fraction), 0, 1) * (len(_STOPS) - 1)
    channels = [np.interp(place, np.arange(len(_STOPS)), _STOPS[:, channel]) for channel in range(3)]
    found = np.stack(channels, axis=-1)
    found[np.isnan(fraction)] = 255
    return found.astype(np.uint8)


def thumbnail(frame: NDArray[np.generic], longest_px: int = 180) -> NDArray[np.uint8]:
    """Return a frame, shape (ny, nx), as a small grey picture: means of blocks, from its 1st to its 99th percentile."""
    image = np.asarray(frame, float)
    step = max(1, -(-max(image.shape) // longest_px))
    rows, columns = (size // step * step for size in image.shape)
    small = image[:rows, :columns].reshape(rows // step, step, columns // step, step).mean(axis=(1, 3))
    finite = small[np.isfinite(small)]
    low, high = np.percentile(finite, (1, 99)) if finite.size else (0.0, 1.0)
    return (255 * np.clip((np.nan_to_num(small, nan=low) - low) / max(high - low, 1e-12), 0, 1)).astype(np.uint8)
