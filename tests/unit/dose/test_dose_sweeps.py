"""Dose of an energy sweep: the mean over all its energies, in the reservation, the settlement and the replay of the ledger."""

from __future__ import annotations

import numpy as np
import pytest

from xbat_live.dose import (
    Beam,
    DoseAccount,
    DoseLimit,
    DoseRefused,
    ExposureRequest,
    Ledger,
    presets,
    scan_dose_per_fluence,
)

ENERGIES = tuple(np.linspace(8266.0, 8878.0, 40).tolist())
STACK = presets.cell("lno_rock")
BEAM = Beam.gaussian(1.041e12, fwhm_um=(600.0, 300.0), order=2)


def account(ledger, **options):
    return DoseAccount(
        ledger,
        stack=STACK,
        beam=BEAM,
        limits=options.pop("limits", ()),
        layer="cathode",
        material="LiNiO2",
        grid_um=25.0,
    )


def request(energies=ENERGIES, **changes):
    return ExposureRequest(0.0, 0.0, 8400.0, changes.pop("open_time_s", 11.0), 1e12, energies_ev=energies)


def test_the_whole_sweep_counts_and_not_one_of_its_energies(tmp_path):
    with Ledger.for_sample(tmp_path, "s") as ledger:
        book = account(ledger)
        per_fluence = scan_dose_per_fluence(STACK, ENERGIES, "cathode", "LiNiO2")
        at_one = float(STACK.dose_per_fluence(np.array([np.mean(ENERGIES)]), "cathode", "LiNiO2")[0])
        ratio = book.predict(request()) / book.predict(request(energies=()))
        at_8400 = float(STACK.dose_per_fluence(np.array([8400.0]), "cathode", "LiNiO2")[0])
        assert ratio == pytest.approx(per_fluence / at_8400)
        assert abs(per_fluence / at_one - 1) > 0.01


def test_the_ledger_gives_the_same_map_when_it_is_opened_again(tmp_path):
    with Ledger.for_sample(tmp_path, "s") as ledger:
        book = account(ledger)
        whole = book.predict(request())
        held = book.reserve(request())
        book.settle(held.id, open_time_s=5.5, flux_ph_s=1e12)
        book.reserve(request())  # killed in this one
        dose = book.dose_map().dose_gy
    with Ledger.for_sample(tmp_path, "s") as ledger:
        again = account(ledger)
        assert np.array_equal(again.dose_map().dose_gy, dose)
        assert again.dose_map().dose_gy.max() == pytest.approx(1.5 * whole, rel=1e-6)
        assert len(again.unsettled) == 1


def test_a_sweep_beyond_a_limit_is_refused_whole(tmp_path):
    with Ledger.for_sample(tmp_path, "s") as ledger:
        free = account(ledger).predict(request())
        book = account(ledger, limits=[DoseLimit("limit", "LiNiO2", limit_gy=0.99 * free)])
        with pytest.raises(DoseRefused):
            book.reserve(request())


def test_energies_outside_the_tables_are_refused():
    with pytest.raises(ValueError, match="eV"):
        request(energies=(8300.0, 8.3))
