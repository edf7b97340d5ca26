"""States of an account kept in its ledger, so that opening a long ledger takes bounded time. A cache, never needed."""

from __future__ import annotations

import hashlib
import json
import logging
import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np

from xbat_live.dose.exposure import ExposureRequest
from xbat_live.dose.grid import Window
from xbat_live.dose.ledger import Ledger, LedgerError
from xbat_live.dose.materials import Material
from xbat_live.dose.planes import TILE_PX
from xbat_live.dose.replay import Reader
from xbat_live.dose.stack import Layer, LayerStack
from xbat_live.dose.state import AccountState, Exposed, Pending, Writer, empty_state
from xbat_live.dose.tracks import DoseTarget, Tracks

logger = logging.getLogger(__name__)

FORMAT = 1
_PROBE_EV = (3_000.0, 8_562.0, 27_000.0)
MAX_BYTES = 512 * 2**20
"""A map larger than this is not kept; it is rebuilt from the records."""
AT_CLOSE = 1_000
"""Records since the last snapshot from which on closing the ledger writes another."""


@dataclass(frozen=True)
class Settings:
    """What a state depends on beside the records.

    Attributes
    ----------
    tracks
        Stack, model and targets.
    grid_um
        Pixel of the map, um.
    outline_um
        Size (x, y) of the sample, um. It only matters for reading a map, so a state serves any.
    """

    tracks: Tracks
    grid_um: float
    outline_um: tuple[float, float] | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return the settings as plain data (JSON), with samples of the cross sections they were made with."""
        return {
            "format": FORMAT,
            "tile_px": TILE_PX,
            "model": self.tracks.model,
            "stack": self.tracks.stack.as_dict(),
            "targets": [[target.layer, target.material] for target in self.tracks.targets],
            "gray_cm2": [self.tracks.gray_cm2(energy_ev) for energy_ev in _PROBE_EV],
            "grid_um": self.grid_um,
        }

    @property
    def key(self) -> str:
        """Short hash of the settings."""
        return hashlib.sha256(json.dumps(self.as_dict(), sort_keys=True).encode()).hexdigest()[:16]

    def empty(self) -> AccountState:
        """Return the state before the first record."""
        return empty_state(self.grid_um, self.outline_um, len(self.tracks.targets))


def pack(settings: Settings, state: AccountState) -> bytes:
    """Write a state down; equal states of equal settings give equal bytes."""
    tiles = sorted(state.map.planes.tiles.items())
    touched = state.map.planes.touched
    header = {
        "settings": settings.as_dict(),
        "state": state.header(),
        "touched": [touched.row0, touched.row1, touched.col0, touched.col1],
        "tiles": [key for key, _ in tiles],
    }
    text = json.dumps(header, sort_keys=True).encode()
    body = zlib.compress(b"".join(tile.astype("<f8", copy=False).tobytes() for _, tile in tiles), 1)
    return len(text).to_bytes(8, "little") + text + body


def header_of(data: bytes) -> dict[str, Any]:
    """Return the part of a written state that tells what it is."""
    length = int.from_bytes(data[:8], "little")
    header: dict[str, Any] = json.loads(data[8 : 8 + length])
    return header


def settings_of(data: bytes) -> Settings:
    """Return the settings of a written state."""
    content = header_of(data)["settings"]
    targets = tuple(DoseTarget(layer, material) for layer, material in content["targets"])
    return Settings(Tracks(_stack(content["stack"]), content["model"], targets), content["grid_um"])


def unpack(data: bytes, settings: Settings, reader: Reader) -> AccountState:
    """Build a state again from `pack`.

    Raises
    ------
    ValueError, KeyError, TypeError, zlib.error
        Not what `pack` wrote.
    LedgerCorrupt
        It refers to a definition that is missing.
    """
    header = header_of(data)
    content = header["state"]
    state = settings.empty()
    planes = state.map.planes
    body = zlib.decompress(data[8 + int.from_bytes(data[:8], "little") :])
    shape = (len(header["tiles"]), planes.count, TILE_PX, TILE_PX)
    values = np.frombuffer(body, dtype="<f8").reshape(shape).astype(np.float64)
    planes.tiles.update(
        {(row, column): tile.copy() for (row, column), tile in zip(header["tiles"], values, strict=True)}
    )
    planes.touched = Window(*header["touched"])
    state.seq, state.open_time_s = int(content["seq"]), float(content["open_time_s"])
    state.counts.update(content["counts"])
    state.spots.load(content["spots"])
    state.last_counter_s, state.degraded = content["last_counter_s"], content["degraded"]
    state.last_on_sample = None if content["last_on_sample"] is None else Exposed(*content["last_on_sample"])
    state.writer = None if content["writer"] is None else Writer(*content["writer"])
    fields = len(Exposed._fields)
    for number, *item in content["pending"]:
        profile_id, gray_cm2, ended = item[fields:]
        request = ExposureRequest(*item[:fields])
        state.promise(
            number,
            Pending(
                request,
                profile_id,
                reader.profile(profile_id),
                tuple(gray_cm2),
                None if ended is None else Writer(*ended),
            ),
        )
    return state


def load(ledger: Ledger, settings: Settings, reader: Reader) -> AccountState | None:
    """Return the state that was kept for `settings`, or None when there is none that can be trusted."""
    found = ledger.snapshot(settings.key)
    if found is None:
        return None
    seq, data = found
    try:
        state = unpack(data, settings, reader)
        stamp = ledger.query(
            "SELECT boot_id, process_id, time_unix_s, time_monotonic_s FROM records WHERE seq = ?", (seq,)
        )
        if state.seq != seq or [state.writer] != [Writer(*row) for row in stamp]:
            raise ValueError(f"it is of record {state.seq}, which is not the one in the ledger")
    except Exception:  # whatever is wrong with a cache, the records are there
        logger.warning("%s: a snapshot cannot be used; the ledger is read in full", ledger.path, exc_info=True)
        return None
    return state


def _stack(content: dict[str, Any]) -> LayerStack:
    """Build a stack again from `LayerStack.as_dict`."""

    def parts(layer: dict[str, Any]) -> dict[Material, float]:
        return {
            Material(part["name"], part["formula"], part["density_g_cm3"]): part["volume_fraction"]
            for part in layer["parts"]
        }

    layers = (
        Layer(layer["name"], layer["thickness_um"], parts(layer), thin_film=layer.get("thin_film", False))
        for layer in content["layers"]
    )
    return LayerStack(layers, tilt_deg=content["tilt_deg"])


class Keeper:
    """Writes snapshots now and then, and when the ledger is closed.

    Parameters
    ----------
    ledger, settings
        Where, and what of.
    every
        Records between two snapshots.
    kept_seq
        Record of the last one.

    Attributes
    ----------
    whole
        False when the state lacks records that others wrote; nothing is kept then.
    """

    def __init__(self, ledger: Ledger, settings: Settings, every: int, kept_seq: int) -> None:
        self._ledger, self._settings, self._every, self._kept_seq = ledger, settings, every, kept_seq
        self.whole = True

    def now_and_then(self, state: AccountState) -> None:
        """Keep the state when enough records came since the last time."""
        if state.seq - self._kept_seq >= self._every:
            self._keep(state)

    def at_close(self, state: AccountState) -> None:
        """Keep the state when reading the records since the last time would be felt."""
        if state.seq - self._kept_seq >= min(AT_CLOSE, self._every):
            self._keep(state)

    def _keep(self, state: AccountState) -> None:
        """Write a snapshot. Without one, opening takes longer; nothing else depends on it."""
        self._kept_seq = state.seq
        if not self.whole or state.map.planes.nbytes > MAX_BYTES:
            return
        try:
            self._ledger.save_snapshot(self._settings.key, state.seq, pack(self._settings, state))
        except LedgerError:
            logger.warning("%s: no snapshot kept; opening will take longer", self._ledger.path, exc_info=True)
