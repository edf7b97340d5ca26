"""A protocol of energy sweeps, after it: components, their maps, evolution and the dose threshold against a synthetic truth."""

from __future__ import annotations

import json
from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import pytest

from xbat_live.analysis import AnalysisError, analyse_xas
from xbat_live.analysis.figures import write_xas_figures, xas_figure_files
from xbat_live.analysis.protocol_cubes import FOIL, I0, SAMPLE, Cube, ProtocolCubes
from xbat_live.analysis.storing import _xas_arrays
from xbat_live.callbacks.xas_state import XasSettings
from xbat_live.dose import dose_masks

SHAPE = (30, 40)
ENERGY_EV = np.linspace(8272.0, 8450.0, 110) + np.sin(np.linspace(0, 3, 110))  # not even
COUNTS, DARK = 40_000.0, 100.0
THRESHOLD_GY, TOP_RATE_GY_S = 35e6, 7e3
IRRADIATED_S = 17_000.0  # up to 119 MGy
SHIFT_EV = 0.8 + 0.02 * np.arange(SHAPE[0])[:, None] * np.ones(SHAPE)  # true minus nominal


def rate_gy_s():
    y, x = (np.linspace(-1, 1, n) for n in SHAPE)
    return TOP_RATE_GY_S * np.exp(-1.5 * (x[None, :] ** 2 + y[:, None] ** 2))


def spectrum(energy_ev, edge_ev, white):
    rise = 0.5 + np.arctan((energy_ev - edge_ev) / 1.2) / np.pi
    return rise + white * np.exp(-0.5 * ((energy_ev - edge_ev - 5) / 2.5) ** 2)


def mixture(progress, energy_ev):
    """Three components, their shares (1-p)^2, 2p(1-p), p^2."""
    shares = (1 - progress) ** 2, 2 * progress * (1 - progress), progress**2
    parts = (8342.5, 0.50), (8343.6, 0.62), (8344.9, 0.45)
    return sum(share * spectrum(energy_ev, *part) for share, part in zip(shares, parts, strict=True))


def progress_map(charged, place_time_s):
    excess = np.maximum(rate_gy_s() * place_time_s / THRESHOLD_GY - 1, 0)
    return charged * (1 - 0.8 * (1 - np.exp(-excess)))


@dataclass
class Counted:
    """Cubes of counts with photon noise; as `Cubes`, but in memory."""

    of: list[np.ndarray]

    def frames(self, number):
        yield from self.of[number]


def counted(absorbance, rng):
    """Return counts behind absorbance (n, ny, nx), or None for nothing in the beam."""
    beam = COUNTS * (0.2 + rate_gy_s() / TOP_RATE_GY_S) * np.ones((ENERGY_EV.size, 1, 1))
    through = beam if absorbance is None else beam * np.exp(-absorbance)
    return np.clip(rng.poisson(through) + DARK, 0, 65535).astype(np.uint16)


def behind(kind, progress, true_ev):
    if kind == I0:
        return None
    if kind == FOIL:
        return 0.3 + 1.1 * (spectrum(true_ev, 8333.0, 0.0))
    return 0.3 + 0.7 * mixture(progress, true_ev)


def protocol(*, leave_out=(), last="end A", change=1.0, seed=1):
    rng = np.random.default_rng(seed)
    steps = [(I0, "I0 at the start", "", 0.0, 0.0)] * 3 + [(FOIL, "foil at the start", "", 0.0, 0.0)] * 3
    steps += [(SAMPLE, "ocv", "C", 0.0, 60.0 * n) for n in (1, 2)]
    steps += [(SAMPLE, "charge", "C", n / 10, IRRADIATED_S * n / 10) for n in range(1, 10)]
    steps += [(SAMPLE, "end C", "C", 1.0, IRRADIATED_S)] * 4 + [(SAMPLE, "end A", "A", 1.0, 60.0)] * 2
    steps = [step for step in steps if step[0] not in leave_out and step[1] not in leave_out]
    true_ev = ENERGY_EV[:, None, None] + SHIFT_EV
    values = [
        counted(behind(kind, change * progress_map(charged, time_s), true_ev), rng)
        for kind, _, _, charged, time_s in steps
    ]
    cubes = tuple(
        Cube(
            number,
            kind,
            phase,
            place,
            1000.0 + 10 * number,
            time_s,
            3.6 + charged / 2,
            charged,
            ENERGY_EV,
            Counted(values),
            number,
        )
        for number, (kind, phase, place, charged, time_s) in enumerate(steps)
    )
    run = SimpleNamespace(uid="0123456789", streams=("primary",))
    return ProtocolCubes(run, ("0123456789",), (), (), cubes, (run,))


def settings(**changes):
    options = {"bin": 1, "pre_edge_ev": (8275.0, 8318.0), "post_edge_ev": (8375.0, 8445.0), "dark_counts": DARK}
    return XasSettings(
        rate_masks=lambda *_: dose_masks(rate_gy_s(), 300.0, start_gy_s=100.0, pixel_size_um=6.5), **(options | changes)
    )


@pytest.fixture(scope="module")
def analysis():
    return analyse_xas(protocol(), settings())


def test_the_groups_are_the_phases_of_the_protocol_but_the_charge(analysis):
    assert [(group.name, group.place, len(group.numbers)) for group in analysis.groups] == [
        ("ocv", "C", 2),
        ("end C", "C", 4),
        ("end A", "A", 2),
    ]
    assert np.max(analysis.irradiated.dose_gy) == pytest.approx(TOP_RATE_GY_S * IRRADIATED_S, rel=0.01)


def test_components_are_ordered_and_their_maps_right(analysis):
    ocv, end, fresh = analysis.groups
    assert len(analysis.components) == 3
    np.testing.assert_allclose(np.nansum(end.fractions, axis=0)[5:-5, 5:-5], 1.0, atol=1e-6)
    assert np.nanmean(ocv.fractions[0]) > 0.93  # pristine before the charge
    assert np.nanmean(fresh.fractions[2]) > 0.93  # charged where the beam was not
    middle = (slice(12, 18), slice(16, 24))  # about 110 MGy
    truth = np.mean(progress_map(1.0, IRRADIATED_S)[middle] ** 2)
    # the intermediate is nowhere purer than a half, so that its spectrum is known only up to a share of its neighbours
    assert np.nanmean(end.fractions[2][middle]) == pytest.approx(truth, abs=0.15)
    assert np.nanmean(end.fractions[2][:3, :3]) > 0.9  # the dark corner is charged


def test_edges_are_true_energies(analysis):
    """Half height of the last component lies where its own spectrum has it; the shift of the pixels is taken off."""
    fresh = analysis.groups[-1]
    energy = np.arange(8335.0, 8350.0, 0.01)
    half = energy[np.argmax(spectrum(energy, 8344.9, 0.45) > 0.5)]
    assert np.nanmedian(fresh.edge_ev) == pytest.approx(half, abs=0.35)
    assert np.nanstd(np.nanmedian(fresh.edge_ev, axis=1)) < 0.1  # 0.6 eV before


def test_pixels_of_high_dose_rate_stay_behind_and_those_of_low_do_not(analysis):
    evolution = analysis.evolution
    assert evolution.number.size == 2 + 9 + 4
    assert set(evolution.phase) == {"ocv", "charge", "end C"}
    assert evolution.low.shape == (15, evolution.grid_ev.size)
    assert evolution.low_fractions[-1, 2] > 0.85
    assert evolution.high_fractions[-1, 2] < 0.4
    assert evolution.voltage_v[-1] > evolution.voltage_v[0]


def test_the_threshold_is_the_truth_within_its_interval(analysis):
    low, high = analysis.threshold.interval_gy
    assert analysis.threshold.value_gy == pytest.approx(THRESHOLD_GY, rel=0.15)
    assert low < THRESHOLD_GY < high


def test_numbers_are_plain_and_arrays_have_a_dimension_each(analysis):
    told = json.loads(json.dumps(analysis.summary()))
    assert told["threshold_gy"] == pytest.approx(analysis.threshold.value_gy)
    assert set(told["groups"]) == {"ocv", "end C", "end A"}
    for part, arrays in _xas_arrays(analysis).items():
        for name, array in arrays.items():
            assert array.values.ndim == len(array.dims), (part, name)
            assert array.meaning


def test_figures_are_written(analysis, tmp_path, monkeypatch):
    pytest.importorskip("matplotlib")
    monkeypatch.setattr("xbat_live.analysis.figures.writing.RESOLUTION_DPI", 60)
    files = write_xas_figures(analysis, tmp_path)
    assert sorted(file.name for file in files) == sorted(xas_figure_files())
    assert all(file.stat().st_size > 5000 for file in files)


@pytest.mark.parametrize(
    ("left_out", "told"),
    [(I0, "no I0 cube"), (FOIL, "no foil cube")],
)
def test_missing_references_are_told(left_out, told):
    with pytest.raises(AnalysisError, match=told):
        analyse_xas(protocol(leave_out=(left_out,)), settings())


def test_a_run_cut_off_in_the_charge_takes_the_last_cubes_of_it():
    found = analyse_xas(protocol(leave_out=("end C", "end A")), settings())
    assert [group.name for group in found.groups] == ["ocv", "charge, last cubes"]
    assert found.irradiated.numbers == (12, 13, 14, 15, 16)


def test_a_sample_that_does_not_change_has_no_components_and_no_threshold():
    found = analyse_xas(protocol(change=0.0, leave_out=("charge",)), settings())
    assert len(found.components) == 0
    assert not found.threshold.found
    assert "components are not known" in found.threshold.reason
    assert found.curve is None
    assert any("do not change enough" in note for note in found.notes)
