"""caproto IOCs of the simulated beamline.

Nothing is imported here: caproto reads its environment when it is imported (see `xbat_live.sim.environment`).
"""

__all__: list[str] = []
