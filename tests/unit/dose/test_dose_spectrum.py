"""Scans, harmonics and spectra are sums over their photons."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xbat_live.dose import Spectrum, presets, scan_dose_per_fluence

ROCK = presets.cell("lno_rock")
PLACE = "cathode", "LiNiO2"


def gray_cm2(energy_ev, model="attenuation"):
    return ROCK.dose_per_fluence(energy_ev, *PLACE, model)


def test_dwell_times_weigh_the_energies():
    scan_ev, dwell_s = [8300.0, 8400.0], [3.0, 1.0]
    expected = 0.75 * gray_cm2(8300.0) + 0.25 * gray_cm2(8400.0)
    assert scan_dose_per_fluence(ROCK, scan_ev, *PLACE, dwell_s=dwell_s) == pytest.approx(expected, rel=1e-12)
    assert Spectrum.scan(scan_ev, dwell_s, [1e10, 3e10]).weight.tolist() == [0.5, 0.5]


def test_a_scan_at_one_energy_would_be_wrong_across_the_edge():
    """Dose model 2.1: 4.14 kGy/s at 8390 eV, 3.75 averaged over the scan."""
    scan = scan_dose_per_fluence(ROCK, np.linspace(8266.0, 8878.0, 580), *PLACE)
    assert scan / gray_cm2(8390.0) == pytest.approx(3749 / 4136, rel=0.005)


@settings(max_examples=40, deadline=None)
@given(fraction=st.floats(0, 0.5), energy_ev=st.floats(4000, 20_000), model=st.sampled_from(["attenuation", "energy"]))
def test_a_harmonic_counts_with_its_share_of_the_photons(fraction, energy_ev, model):
    mixed = Spectrum(energy_ev).with_harmonics({3: fraction})
    expected = (1 - fraction) * gray_cm2(energy_ev, model) + fraction * gray_cm2(3 * energy_ev, model)
    assert mixed.dose_per_fluence(ROCK, *PLACE, model) == pytest.approx(expected, rel=1e-12)
    assert mixed.mean_energy_ev == pytest.approx(energy_ev * (1 + 2 * fraction))
    assert mixed.weight.sum() == pytest.approx(1.0)


def test_sums_for_layers_and_transmission():
    spectrum = Spectrum([8300.0, 8400.0], [1, 1])
    assert spectrum.layer_dose_per_fluence(ROCK, "cathode") == pytest.approx(
        ROCK.layer_dose_per_fluence(np.array([8300.0, 8400.0]), "cathode").mean()
    )
    assert spectrum.transmission_to(ROCK, "cathode") == pytest.approx(
        ROCK.transmission_to("cathode", np.array([8300.0, 8400.0])).mean()
    )


ROWS = [
    ("keV", lambda: Spectrum([8.3, 8.4]), "did you mean 8300 eV"),
    ("too few weights", lambda: Spectrum([8300.0, 8400.0], [1.0]), "one number per energy"),
    ("negative weight", lambda: Spectrum([8300.0, 8400.0], [1.0, -1.0]), "-1 is not possible"),
    ("dwell not a number", lambda: Spectrum.scan([8300.0, 8400.0], [1.0, np.nan]), "dwell_s: nan is not possible"),
    ("no photons", lambda: Spectrum([8300.0], [0.0]), "all are 0"),
    ("no energy", lambda: Spectrum([]), "no photon energy"),
    ("percent", lambda: Spectrum(8300.0).with_harmonics({3: 1.5}), "write 0.01 for 1 %"),
    ("first harmonic", lambda: Spectrum(8300.0).with_harmonics({1: 0.5}), "orders are 2, 3"),
    ("nothing left", lambda: Spectrum(8300.0).with_harmonics({2: 0.5, 3: 0.5}), "nothing is left"),
    ("beyond the tables", lambda: Spectrum(60_000.0).with_harmonics({9: 0.1}), "beyond 400000 eV"),
]


@pytest.mark.parametrize(("reason", "action", "message"), ROWS, ids=[row[0] for row in ROWS])
def test_refused_with_a_useful_message(reason, action, message):
    with pytest.raises(ValueError, match=message):
        action()
