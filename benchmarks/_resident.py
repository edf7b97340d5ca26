"""Resident memory of this process."""

from __future__ import annotations

from pathlib import Path


def resident_mb() -> float:
    """Return this process's resident memory, MB."""
    fields = Path("/proc/self/statm").read_text().split()
    return int(fields[1]) * 4096 / 1e6
