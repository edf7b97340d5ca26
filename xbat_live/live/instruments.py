"""What the live view shows between Events: shutter, ring, stage from monitors; the dose map; disk and backlog."""

from __future__ import annotations

import base64
import contextlib
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import numpy as np

MAP_CELLS = 160
_LEVELS = 255
_DECADES = 5.0
_DISK_EVERY_S = 10.0


class Mapped(Protocol):
    """What the map needs of a dose account."""

    def dose_map(self) -> Any:
        """Return the dose on the sample."""


class Machine:
    """Last values of signals with monitors; asking for them never waits for Channel Access.

    Parameters
    ----------
    signals
        By name.
    """

    def __init__(self, signals: dict[str, Any]) -> None:
        self._signals = signals
        self._values: dict[str, Any] = {}
        self._subscriptions: list[tuple[Any, int]] = []
        self._opened_s: float | None = None

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Subscribe while the context lasts."""
        try:
            for name, signal in self._signals.items():
                self._subscriptions.append((signal, signal.subscribe(self._taker(name), run=bool(signal.connected))))
            yield
        finally:
            for signal, number in self._subscriptions:
                with contextlib.suppress(KeyError):
                    signal.unsubscribe(number)
            self._subscriptions.clear()

    def _taker(self, name: str) -> Callable[..., None]:
        def take(value: Any = None, **_: Any) -> None:
            self._values[name] = value
            if name == "shutter" and value != "Closed":
                self._opened_s = time.monotonic()

        return take

    def values(self) -> dict[str, Any]:
        """Return the values by name, and ``opened_s_ago``: how long ago the shutter was last seen other than closed, s."""
        ago_s = None if self._opened_s is None else round(time.monotonic() - self._opened_s, 1)
        return {**self._values, "opened_s_ago": ago_s}


def draw_map(account: Mapped) -> dict[str, Any]:
    """Return the dose map as the page wants it: 8 bit, logarithmic, the largest dose of every cell kept.

    Returns
    -------
    dict
        ``x0_um``, ``y0_um`` (edges), ``cell_x_um``, ``cell_y_um``, ``nx``, ``ny``, ``peak_gy``, ``floor_gy`` and ``levels``: base64
        of ny rows of nx bytes, 0 for no dose, else ``1 + 254 log(dose / floor) / log(peak / floor)``.
    """
    found = account.dose_map()
    dose, x, y = np.asarray(found.dose_gy), found.x_um, found.y_um
    if not dose.size:
        return {"nx": 0, "ny": 0, "peak_gy": 0.0}
    pixel_um = float(x[1] - x[0]) if len(x) > 1 else 1.0
    factor = max(-(-max(dose.shape) // MAP_CELLS), 1)
    ny, nx = (-(-size // factor) for size in dose.shape)
    padded = np.zeros((ny * factor, nx * factor))
    padded[: dose.shape[0], : dose.shape[1]] = dose
    cells = padded.reshape(ny, factor, nx, factor).max(axis=(1, 3))
    peak = float(cells.max())
    floor = peak / 10**_DECADES if peak > 0 else 1.0
    levels = np.zeros(cells.shape, np.uint8)
    dosed = cells > floor
    levels[dosed] = 1 + np.rint((_LEVELS - 1) * np.log(cells[dosed] / floor) / (_DECADES * np.log(10))).astype(np.uint8)
    return {
        "x0_um": float(x[0]) - pixel_um / 2,
        "y0_um": float(y[0]) - pixel_um / 2,
        "cell_x_um": pixel_um * factor,
        "cell_y_um": pixel_um * factor,
        "nx": nx,
        "ny": ny,
        "peak_gy": peak,
        "floor_gy": floor,
        "levels": base64.b64encode(levels.tobytes()).decode(),
    }


class Disk:
    """Free space of a folder's disk, and how long it lasts at the pace so far."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._first: tuple[float, int] | None = None
        self._last: tuple[float, dict[str, Any]] | None = None

    def state(self) -> dict[str, Any]:
        """Return ``disk_free_bytes`` and ``disk_hours`` (None: not known yet, or it does not shrink); looked up now and then."""
        now_s = time.monotonic()
        if self._last is None or now_s - self._last[0] > _DISK_EVERY_S:
            self._last = now_s, self._look(now_s)
        return self._last[1]

    def _look(self, now_s: float) -> dict[str, Any]:
        try:
            free = shutil.disk_usage(self._folder).free
        except OSError:
            return {"disk_free_bytes": None, "disk_hours": None}
        if self._first is None:
            self._first = (now_s, free)
        elapsed_s, used = now_s - self._first[0], self._first[1] - free
        hours = free / used * elapsed_s / 3600 if used > 0 and elapsed_s > 10 else None
        return {"disk_free_bytes": free, "disk_hours": hours}
