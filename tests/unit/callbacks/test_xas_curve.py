"""Edge energy against dose: the threshold is found where it is, not where there is none; maps and their documents."""

from __future__ import annotations

import h5py
import numpy as np
import pytest

from xbat_live.callbacks.xas_curve import edge_curve, edge_threshold, time_at_edge_s
from xbat_live.callbacks.xas_products import XasProducts

SHAPE = (60, 100)


def maps(threshold_gy, *, noise=0.2, slope_ev=2.0, seed=1):
    """Edge energies of pixels with 0 to 120 MGy that stay behind from `threshold_gy` on."""
    rng = np.random.default_rng(seed)
    dose = rng.uniform(1e6, 120e6, SHAPE)
    excess = np.maximum(dose / threshold_gy - 1, 0)
    edge = 8345.5 - slope_ev * (1 - np.exp(-excess / 1.2)) + noise * rng.standard_normal(SHAPE)
    return edge, dose


@pytest.mark.parametrize("threshold_gy", [20e6, 35e6, 60e6])
def test_the_threshold_is_found_within_a_tenth(threshold_gy):
    found = [edge_threshold(edge_curve(*maps(threshold_gy, seed=seed))) for seed in range(8)]
    assert all(item.found for item in found)
    assert np.median([item.value_gy for item in found]) == pytest.approx(threshold_gy, rel=0.1)
    assert all(item.interval_gy[0] < threshold_gy < item.interval_gy[1] for item in found)


@pytest.mark.parametrize("case", ["flat", "rising", "few pixels", "nothing"])
def test_no_threshold_where_there_is_none(case):
    edge, dose = maps(35e6, slope_ev={"flat": 0.0, "rising": -2.0}.get(case, 2.0))
    if case == "few pixels":
        edge, dose = edge[:1, :20], dose[:1, :20]
    if case == "nothing":
        edge = np.full(SHAPE, np.nan)
    assert not edge_threshold(edge_curve(edge, dose)).found


def test_nan_pixels_are_left_out():
    edge, dose = maps(35e6)
    edge[::3] = np.nan
    curve = edge_curve(edge, dose)
    assert np.isfinite(curve.fraction).all()
    assert edge_threshold(curve).value_gy == pytest.approx(35e6, rel=0.15)


def test_maps_lie_in_a_file_and_an_event_refers_to_its_row(tmp_path):
    products = XasProducts(tmp_path)
    for number in range(2):
        row = products.write({"edge_ev": np.full((3, 4), number), "fractions": np.zeros((2, 3, 4))})
        assert row == number
    assert products.describe()["xas_map_fractions"]["shape"] == [2, 3, 4]
    assert products.describe()["xas_map_edge_ev"]["units"] == "eV"
    documents = list(products.select(1).collect_asset_docs())
    assert [name for name, _ in documents] == ["stream_resource", "stream_datum"] * 2
    assert documents[1][1]["indices"] == {"start": 1, "stop": 2}
    assert list(products.collect_asset_docs()) == []
    products.close()
    with h5py.File(next(tmp_path.glob("xas-*.h5"))) as file:
        assert (file["edge_ev"][1] == 1).all()


@pytest.mark.parametrize(
    ("descending", "edge_ev", "time_s", "why"),
    [
        (False, 8345.0, 91.5, "a sweep upwards passes the edge early: 15 % of ten seconds after its begin at 90 s"),
        (True, 8345.0, 98.5, "a sweep downwards late"),
        (False, 9999.0, 100.0, "no edge in it: the end of the cube"),
    ],
)
def test_a_cube_tells_of_the_dose_when_it_passed_the_edge(descending, edge_ev, time_s, why):
    energies = np.linspace(8255.0, 8855.0, 2001)
    energies = energies[::-1] if descending else energies
    assert time_at_edge_s(energies, edge_ev, 100.0, 10.0) == pytest.approx(time_s, abs=0.01), why
