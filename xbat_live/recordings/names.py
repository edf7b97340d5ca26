"""What the name of a frame's file tells: its energy, and whether the sample was in."""

from __future__ import annotations

import re
from pathlib import Path

from xbat_live.recordings.model import FrameKind

_ENERGY = re.compile(r"(?:^|[_\-. ])(\d{3,6}(?:\.\d+)?)_?eV", re.IGNORECASE)
_FLAT = re.compile(r"(?:^|[_\-. ])(?:ref|flat|white|bkg)", re.IGNORECASE)
_DARK = re.compile(r"(?:^|[_\-. ])dark", re.IGNORECASE)


def energy_in_name(file: Path) -> float | None:
    """Return the energy in a file name, e.g. ``..._08324.0_eV_001of003.xrm``, in eV."""
    match = _ENERGY.search(file.name)
    return float(match.group(1)) if match else None


def kind_in_name(file: Path) -> FrameKind:
    """Return ``flat`` for names with a word that begins with ref, flat, white or bkg, ``dark`` likewise, else ``sample``."""
    if _DARK.search(file.stem):
        return "dark"
    return "flat" if _FLAT.search(file.stem) else "sample"
