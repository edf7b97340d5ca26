"""The patient account keeps exposures back only while nothing can happen: it decides and warns as the account itself does."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import pytest

from xbat_live.dose import Beam, DoseAccount, DoseLimit, DoseRefused, ExposureRequest, Ledger, presets
from xbat_live.dose.tracks import DoseTarget
from xbat_live.forecast.account import PatientAccount, scratch_ledger

STACK = presets.cell("txm_nmc622")
BEAM = Beam.gaussian(1e10, fwhm_um=(30, 30), order=8)
ALLOWANCE = 1.1
FIELDS = ((0.0, 0.0), (30.0, 0.0))


def limit(gy, name="dose limit", material="NMC622", **options):
    return DoseLimit(name, material, limit_gy=gy, **options)


def make_account(ledger, limits):
    return DoseAccount(
        ledger,
        stack=STACK,
        beam=BEAM,
        limits=limits,
        layer="cathode",
        material="NMC622",
        sigma_rel=0.05,
        k_sigma=2.0,
        outline_um=(200.0, 200.0),
        also=[DoseTarget("cathode", "electrolyte")],
    )


class Runner:
    """Exposes at given places until it is refused; tells at which exposures something happened."""

    def __init__(self, ledger, limits, *, patient):
        self.n = 0
        self.account = make_account(ledger, limits)
        self.patient = PatientAccount(self.account, allowance=ALLOWANCE, present=lambda: (self.n, 0.0))
        if not patient:
            self.patient._certain = lambda request: False
        self.refused = []

    def expose(self, request, delivered=0.25):
        self.n += 1
        try:
            reservation = self.patient.reserve(request)
        except DoseRefused as refusal:
            self.refused.append((self.n, refusal.limit.name))
            return
        open_s = request.open_time_s * delivered
        self.patient.settle(reservation.id, open_time_s=open_s, flux_ph_s=request.flux_ph_s)

    def crossings(self):
        return [(crossing.limit.name, crossing.level, crossing.frame) for crossing in self.patient.crossings]


def exposures(kind):
    """Sequences as plans make them."""
    base = ExposureRequest(0.0, 0.0, 8562.0, 0.2, 1e10)
    dice = random.Random(kind)
    if kind == "one field":
        return [base] * 40
    if kind == "two fields":
        return [replace(base, x_um=x, y_um=y) for _ in range(20) for x, y in FIELDS]
    if kind == "spectrum":
        return [
            replace(base, energy_ev=energy) for _ in range(8) for energy in (8300.0, 8340.0, 8350.0, 8500.0, 8320.0)
        ]
    if kind == "drift":
        return [replace(base, x_um=0.3 * n, y_um=-0.2 * n) for n in range(40)]
    if kind == "edge":
        return [replace(base, x_um=95.0), replace(base, x_um=112.0)] * 20
    return [
        replace(base, x_um=dice.uniform(-60, 60), y_um=dice.uniform(-60, 60), flux_ph_s=dice.uniform(2e9, 2e10))
        for _ in range(60)
    ]


LIMITS = {
    "one": (limit(300e3),),
    "with advisory": (limit(300e3), limit(10e3, "radiolysis", "electrolyte", advisory=True)),
    "electrolyte binds": (limit(1e6), limit(6e3, "radiolysis", "electrolyte")),
    "with rate": (limit(300e3), DoseLimit("rate", "NMC622", rate_gy_s=3e5)),
    "rate too low": (limit(300e3), DoseLimit("rate", "NMC622", rate_gy_s=1e5)),
    "window": (limit(300e3), DoseLimit("mean rate", "NMC622", rate_gy_s=5e3, window_s=60.0)),
}


@pytest.mark.parametrize("limits", LIMITS)
@pytest.mark.parametrize("kind", ["one field", "two fields", "spectrum", "drift", "edge", "random"])
def test_it_refuses_and_warns_at_the_same_exposures(tmp_path, kind, limits):
    runners = []
    for patient in (True, False):
        with scratch_ledger(None, wall=lambda: 0.0, monotonic=lambda: 0.0) as ledger:
            runner = Runner(ledger, LIMITS[limits], patient=patient)
            for request in exposures(kind):
                runner.expose(request)
            runner.patient.flush()
            runners.append((runner, [runner.account.dose_map(target).dose_gy for target in runner.account.targets]))
    (patient, patient_maps), (asking, asking_maps) = runners
    assert patient.refused == asking.refused
    assert patient.crossings() == asking.crossings()
    for found, wanted in zip(patient_maps, asking_maps, strict=True):
        assert found == pytest.approx(wanted, rel=1e-9, abs=1e-6)


def test_it_asks_rarely(tmp_path):
    """A spot of several hundred frames, two fields: the account is asked some ten times per level of the limit."""
    with scratch_ledger(None, wall=lambda: 0.0, monotonic=lambda: 0.0) as ledger:
        runner = Runner(ledger, (limit(10e6),), patient=True)
        for request in exposures("two fields") * 40:
            runner.expose(request)
        assert runner.patient.asked < 100


def test_a_question_is_answered_with_everything_that_was_given():
    with scratch_ledger(None, wall=lambda: 0.0, monotonic=lambda: 0.0) as ledger:
        runner = Runner(ledger, (limit(10e6),), patient=True)
        request = exposures("one field")[0]
        for _ in range(20):
            runner.expose(request, delivered=1.0)
        one_gy = runner.account.predict(request)
        assert runner.patient.dose_at(0, 0).peak_gy == pytest.approx(20 * one_gy)


def test_exposures_beside_the_sample_cost_nothing():
    with scratch_ledger(None, wall=lambda: 0.0, monotonic=lambda: 0.0) as ledger:
        runner = Runner(ledger, (limit(1e3),), patient=True)
        runner.expose(replace(exposures("one field")[0], x_um=-250.0, on_sample=False))
        assert runner.refused == []
        assert runner.patient.places == {}


# --- the scratch copy --------------------------------------------------------------------------------------------------------------


def test_the_ledger_itself_is_not_touched(tmp_path):
    with Ledger.for_sample(tmp_path, "cell") as ledger:
        account = make_account(ledger, (limit(1e6),))
        account.record_unreserved(exposures("one field")[0], "by hand")
    file = tmp_path / "cell.sqlite"
    before = {
        path.name: path.read_bytes() for path in tmp_path.iterdir()
    }  # a reader of SQLite leaves an index (-shm) behind
    with scratch_ledger(file, wall=lambda: 0.0, monotonic=lambda: 0.0) as copy:
        account = make_account(copy, (limit(1e6),))
        assert account.dose_at(0, 0).peak_gy > 0
        account.record_unreserved(exposures("one field")[0], "forecast")
        folder = copy.path.parent
    assert {name: (tmp_path / name).read_bytes() for name in before} == before
    assert not folder.exists()


def test_a_ledger_that_is_being_written_can_be_copied(tmp_path):
    with Ledger.for_sample(tmp_path, "cell") as ledger:
        account = make_account(ledger, (limit(1e6),))
        account.record_unreserved(exposures("one field")[0], "by hand")
        with scratch_ledger(tmp_path / "cell.sqlite", wall=lambda: 0.0, monotonic=lambda: 0.0) as copy:
            assert sum(1 for _ in copy.records()) == sum(1 for _ in ledger.records())


@pytest.mark.parametrize("file", [None, Path("/nowhere/cell.sqlite")])
def test_without_a_ledger_the_copy_is_empty(file):
    with scratch_ledger(file, wall=lambda: 0.0, monotonic=lambda: 0.0) as copy:
        assert list(copy.records()) == []
