"""The sample's ledger as the recorded run found it, on a copy that is thrown away: the real one is only read."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from xbat_live.dose import Ledger
from xbat_live.forecast.account import scratch_ledger
from xbat_live.replay.recording import Recording

BOOT = "replay"
"""The recording's clock is none of this machine: earlier records are placed by the wall clock."""
_LATER = "SELECT min(seq) FROM records WHERE run_uid = ?"


@contextmanager
def ledger_at_start(
    recording: Recording, *, wall: Callable[[], float], monotonic: Callable[[], float]
) -> Iterator[tuple[Ledger, list[str]]]:
    """Open a scratch ledger with what the sample's ledger held when the recorded run began.

    Parameters
    ----------
    wall, monotonic
        Clocks of the scratch ledger: those of the recording, s.

    Yields
    ------
    tuple
        The ledger, and what people should know about it.
    """
    about = recording.start.get("dose", {})
    file = Path(about["ledger"]) if about.get("ledger") else None
    peak_gy = float(about.get("peak_gy") or 0.0)
    held = sum(int(count) for count in (about.get("records") or {}).values())
    notes: list[str] = []
    if not held:
        file = None  # the run was the first on this sample
    elif file is None or not file.is_file():
        notes.append(
            f"the sample had received {peak_gy:.4g} Gy before this run, and its ledger ({file}) is not here: "
            "the replay begins without that dose"
        )
    with scratch_ledger(
        file, wall=wall, monotonic=monotonic, before=_first_record(file, recording.uid), boot_id=BOOT
    ) as ledger:
        yield ledger, notes


def _first_record(file: Path | None, run_uid: str) -> int | None:
    """Return the number of the run's first record in a ledger; None when it has none there."""
    if file is None or not file.is_file():
        return None
    with closing(sqlite3.connect(f"{file.resolve().as_uri()}?mode=ro", uri=True)) as connection:
        found = connection.execute(_LATER, (run_uid,)).fetchone()[0]
    return None if found is None else int(found)
