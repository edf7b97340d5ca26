"""Exposures gathered by the spot they were made on."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Protocol


class Exposed(Protocol):
    """What is needed of an exposure: `ExposureRequest`, or a row of the ledger."""

    @property
    def x_um(self) -> float:
        """Sample coordinate, um."""
        ...

    @property
    def y_um(self) -> float:
        """Sample coordinate, um."""
        ...

    @property
    def open_time_s(self) -> float:
        """Shutter-open time, s."""
        ...

    @property
    def flux_ph_s(self) -> float:
        """Flux, photons/s."""
        ...

    @property
    def run_uid(self) -> str:
        """Run."""
        ...

    @property
    def label(self) -> str:
        """What it was for."""
        ...

    @property
    def spot(self) -> int | None:
        """Number of the spot."""
        ...


@dataclass
class SpotSums:
    """Sums over the exposures of one spot; `x_sum` and `y_sum` are weighted by photons, um."""

    run_uid: str
    spot: int | None
    label: str
    first_x_um: float
    first_y_um: float
    width_x_um: float
    width_y_um: float
    exposures: int = 0
    open_time_s: float = 0.0
    photons: float = 0.0
    x_sum: float = 0.0
    y_sum: float = 0.0

    @property
    def centre_um(self) -> tuple[float, float]:
        """Mean position (x, y), um."""
        if self.photons <= 0:
            return self.first_x_um, self.first_y_um
        return self.x_sum / self.photons, self.y_sum / self.photons


class SpotBook:
    """Exposures by run, spot and label.

    Exposures that do not tell their spot are gathered by run, label and place: within half the beam's width of the
    first of them. Memory grows with the spots, not with the exposures.
    """

    def __init__(self) -> None:
        self._told: dict[tuple[str, int, str], SpotSums] = {}
        self._cells: dict[tuple[object, ...], list[SpotSums]] = {}
        self.spots: list[SpotSums] = []

    def add(self, given: Exposed, width_um: tuple[float, float]) -> None:
        """Count an exposure on the sample by a beam of `width_um` (x, y), um."""
        sums = self._find(given, width_um)
        photons = given.flux_ph_s * given.open_time_s
        sums.exposures += 1
        sums.open_time_s += given.open_time_s
        sums.photons += photons
        sums.x_sum += photons * given.x_um
        sums.y_sum += photons * given.y_um

    def as_list(self) -> list[dict[str, Any]]:
        """Return all sums as plain data (JSON)."""
        return [asdict(sums) for sums in self.spots]

    def load(self, content: list[dict[str, Any]]) -> None:
        """Take the sums of `as_list`."""
        for item in content:
            self._keep(SpotSums(**item))

    def _find(self, given: Exposed, width_um: tuple[float, float]) -> SpotSums:
        if given.spot is not None:
            known = self._told.get((given.run_uid, given.spot, given.label))
        else:
            known = self._near(given, width_um)
        if known is None:
            known = self._keep(SpotSums(given.run_uid, given.spot, given.label, given.x_um, given.y_um, *width_um))
        return known

    def _near(self, given: Exposed, width_um: tuple[float, float]) -> SpotSums | None:
        width_x, width_y = width_um
        cell_x, cell_y = given.x_um // width_x, given.y_um // width_y
        for x in (cell_x, cell_x - 1, cell_x + 1):
            for y in (cell_y, cell_y - 1, cell_y + 1):
                for sums in self._cells.get((given.run_uid, given.label, width_x, width_y, x, y), ()):
                    if (
                        abs(given.x_um - sums.first_x_um) <= width_x / 2
                        and abs(given.y_um - sums.first_y_um) <= width_y / 2
                    ):
                        return sums
        return None

    def _keep(self, sums: SpotSums) -> SpotSums:
        self.spots.append(sums)
        if sums.spot is not None:
            self._told[sums.run_uid, sums.spot, sums.label] = sums
        else:
            width_x, width_y = sums.width_x_um, sums.width_y_um
            place = sums.first_x_um // width_x, sums.first_y_um // width_y
            self._cells.setdefault((sums.run_uid, sums.label, width_x, width_y, *place), []).append(sums)
        return sums
