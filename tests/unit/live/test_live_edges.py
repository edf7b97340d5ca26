"""The edge that is shown while energies are scanned."""

from __future__ import annotations

import live_fixtures
import numpy as np
import pytest
from live_fixtures import until
from pretend_run import PretendRun

from xbat_live.live.attach import SpectrumShower
from xbat_live.live.edges import half_height
from xbat_live.live.feed import LiveFeed

folder = live_fixtures.folder

ENERGY_EV = np.r_[8320:8338:3.0, 8338:8356:1.0, 8356:8400:4.0]


def spectrum(edge_ev: float, *, step: float = 0.9, white_line: float = 0.3, slope: float = -1e-4) -> np.ndarray:
    arctan = 0.5 + np.arctan((ENERGY_EV - edge_ev) / 0.8) / np.pi
    line = white_line * np.exp(-(((ENERGY_EV - edge_ev - 6) / 2.0) ** 2))
    return 0.4 + slope * (ENERGY_EV - 8320) + step * (arctan + line)


@pytest.mark.parametrize("shift_ev", [0.0, 0.4, 1.1, 1.7])
def test_a_shift_of_the_edge_is_seen_as_it_is(shift_ev):
    first, then = half_height(ENERGY_EV, spectrum(8344)), half_height(ENERGY_EV, spectrum(8344 + shift_ev))
    assert then.edge_ev - first.edge_ev == pytest.approx(shift_ev, abs=0.15)


def test_the_order_of_the_energies_does_not_matter():
    assert half_height(ENERGY_EV[::-1], spectrum(8344)[::-1]) == half_height(ENERGY_EV, spectrum(8344))


@pytest.mark.parametrize(
    ("energy_ev", "absorbance"),
    [
        (ENERGY_EV[:4], spectrum(8344)[:4]),
        (ENERGY_EV, np.full(len(ENERGY_EV), 0.4)),
        (ENERGY_EV, np.full(len(ENERGY_EV), np.nan)),
        (np.full(9, 8344.0), np.arange(9.0)),
        (ENERGY_EV, -spectrum(8344)),
    ],
    ids=["too few points", "no step", "not a number", "one energy", "a step down"],
)
def test_no_edge_is_none(energy_ev, absorbance):
    assert half_height(energy_ev, absorbance) is None


def test_an_edge_is_shown_for_every_complete_spectrum(folder):
    with LiveFeed(folder / "run-1.feed") as feed:
        for name, doc in PretendRun().begin():
            feed(name, doc)
        shower = SpectrumShower(feed, len(ENERGY_EV))
        for scan, edge_ev in enumerate((8344.0, 8345.0, 8346.0)):
            for energy_ev, mu in zip(ENERGY_EV, spectrum(edge_ev), strict=True):
                data = {
                    "point_index": scan,
                    "point_spot": 0,
                    "mono_energy": energy_ev,
                    "potentiostat_soc": 0.1 * scan,
                    "point_dose_gy": 1e3,
                }
                for _field in "AB":
                    shower.add(data, float(np.exp(-mu)))
        edges = until(
            lambda: (
                feed.store.series.get("edges")
                and len(feed.store.series["edges"].rows) == 3
                and list(feed.store.series["edges"].rows)
            )
        )
        column = feed.store.columns["edges"].index("edge_ev")
        assert np.diff([row[column] for row in edges]) == pytest.approx([1.0, 1.0], abs=0.1)
        assert feed.store.series["xanes"].next == 2 * 3 * len(ENERGY_EV)
