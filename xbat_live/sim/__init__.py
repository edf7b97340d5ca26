"""Digital twin of the beamline: a seeded physical model (`Twin`), and EPICS servers in front of it (`server`, `iocs`).

Tests and demonstrations only: no analysis code may read its truth.
"""

from xbat_live.sim.settings import TwinSettings

__all__ = ["TwinSettings"]
