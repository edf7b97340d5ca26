"""An energy sweep on the virtual clock: what it reserves is the real thing, what it takes is counted."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from xbat_live.devices.energy_sweep import LEAD_S, EnergySweep
from xbat_live.forecast.standins import FINISHED


class WalkedSweep(EnergySweep):
    """Stands for `xbat_live.devices.EnergySweep`.

    Parameters
    ----------
    walk
        Whose clock and frames it moves.
    plan_arguments
        Those of `EnergySweep`.
    """

    def __init__(self, walk: Any, *plan_arguments: Any, **more: Any) -> None:
        super().__init__(*plan_arguments, **more)
        self._walk = walk

    def kickoff(self) -> Any:
        """Do nothing; done at once."""
        return FINISHED

    def complete(self) -> Any:
        """Let the time of a sweep pass and count its frames."""
        walk = self._walk
        walk.clock.now_s += self.n_frames * self.frame_time_s + LEAD_S / 2
        kind = walk.beamline.camera.frame_type.value
        walk.frames[kind] = walk.frames.get(kind, 0) + self.n_frames
        return FINISHED

    def read(self) -> dict[str, Any]:
        """Return nothing: no document is written."""
        return {}

    def describe(self) -> dict[str, Any]:
        """Return nothing."""
        return {}

    def collect_asset_docs(self, index: int | None = None) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield nothing."""
        yield from ()
