"""Snapshots: opening from one, replaying everything and having lived through it give the same, bit by bit."""

import json
import logging
import sqlite3

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from xbat_live.dose import Beam, DoseTarget, Entry, Ledger
from xbat_live.dose.snapshots import pack

ALSO = [DoseTarget("cathode", "electrolyte")]
STEPS = st.lists(
    st.tuples(
        st.floats(-60, 60),
        st.floats(-60, 60),
        st.floats(1e-3, 5),
        st.sampled_from([8300.0, 8562.0]),
        st.sampled_from(["settle", "short", "long", "void", "open", "unreserved", "off", "prior", "note", "none"]),
    ),
    max_size=14,
)


def perform(dose, cell, rows, folder):
    for number, (x_um, y_um, seconds, energy_ev, end) in enumerate(rows):
        spot = number % 3 if number % 2 else None
        request = cell.frame(
            x_um, y_um, open_time_s=seconds, on_sample=end != "off", energy_ev=energy_ev, spot=spot, run_uid="r"
        )
        if end == "unreserved":
            dose.record_unreserved(request, "by hand", counter_s=float(number), degraded="last maximum")
        elif end == "prior":
            dose.record_prior(x_um, y_um, (20, 30), 100 * seconds, "elsewhere")
        elif end == "note":
            dose.note("remark")
        elif end == "none":
            dose.record_unreserved(cell.frame(x_um, y_um, open_time_s=0.0), "nothing came", counter_s=0.5)
        else:
            reservation = dose.reserve(request, counter_s=number + 0.25)
            if end == "void":
                dose.void(reservation.id, "not opened")
            elif end != "open":
                given_s = {"short": 0.3, "long": 1.7}.get(end, 1.0) * seconds
                dose.settle(reservation.id, open_time_s=given_s, flux_ph_s=1.01e10, counter_s=number + 0.5)


def state_of(dose):
    return pack(dose._settings, dose._state)


def no_snapshots(path):
    connection = sqlite3.connect(path / "cell.sqlite")
    connection.execute("DELETE FROM snapshots")
    connection.commit()
    connection.close()


@settings(max_examples=25, deadline=None, phases=[Phase.generate])  # shrinking many openings takes minutes
@given(first=STEPS, second=STEPS, every=st.sampled_from([1, 3, 10_000]))
def test_live_snapshot_and_full_replay_are_one(tmp_path_factory, cell, first, second, every):
    folder = tmp_path_factory.mktemp("snapshot")
    beams = [cell.beam, Beam.top_hat(1e10, (20, 40))]
    for beam, rows in zip(beams, (first, second), strict=True):
        with cell.account(folder, also=ALSO, beam=beam, snapshot_every=every) as dose:
            perform(dose, cell, rows, folder)
            live, summary, status, spots = state_of(dose), dose.summary(), dose.status(), dose.spots()
    with cell.account(folder, also=ALSO, beam=beams[1], read_only=True) as dose:
        assert dose._kept_seq == {1: dose._state.seq, 10_000: 0}.get(every, dose._kept_seq)
        assert state_of(dose) == live
        assert (dose.summary(), dose.spots()) == (summary, spots)
        assert dose.status().dose_gy == status.dose_gy
        report = dose.ledger.verify()
        assert report.problems == ()
        assert report.snapshots == (1 if dose._kept_seq else 0)
    no_snapshots(folder)
    with cell.account(folder, also=ALSO, beam=beams[1], read_only=True) as dose:
        assert dose._kept_seq == 0
        assert state_of(dose) == live


@pytest.fixture
def kept(tmp_path, cell):
    """Return the folder of a ledger with a snapshot and records after it, and the map."""
    with cell.account(tmp_path, snapshot_every=4) as dose:
        for x_um in (0.0, 3.3, 40.0):
            cell.expose(dose, cell.frame(x_um))
        dose.reserve(cell.frame(-20.0))
        live = dose.dose_map().dose_gy
    with cell.account(tmp_path, read_only=True) as dose:
        assert dose._kept_seq == 4
    return tmp_path, live


def flip(connection):
    data = bytearray(connection.execute("SELECT data FROM snapshots").fetchone()[0])
    data[len(data) // 2] ^= 1
    connection.execute("UPDATE snapshots SET data = ?", (bytes(data),))


def claim_more(connection):
    connection.execute("UPDATE snapshots SET seq = 6")


def resign(connection):
    """A snapshot with a valid checksum, but of another history."""
    from xbat_live.dose.ledger import _checksum

    seq, data = connection.execute("SELECT seq, data FROM snapshots").fetchone()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    header["state"]["writer"][2] += 1.0
    text = json.dumps(header, sort_keys=True).encode()
    data = len(text).to_bytes(8, "little") + text + data[8 + length :]
    connection.execute("UPDATE snapshots SET data = ?, checksum = ?", (data, _checksum(seq, data)))


def nonsense(connection):
    from xbat_live.dose.ledger import _checksum

    seq = connection.execute("SELECT seq FROM snapshots").fetchone()[0]
    connection.execute("UPDATE snapshots SET data = ?, checksum = ?", (b"hello", _checksum(seq, b"hello")))


def drop(connection):
    connection.execute("DROP TABLE snapshots")


@pytest.mark.parametrize("damage", [flip, claim_more, resign, nonsense, drop])
def test_a_snapshot_that_cannot_be_trusted_is_not_used(kept, cell, damage, caplog):
    folder, live = kept
    connection = sqlite3.connect(folder / "cell.sqlite")
    damage(connection)
    connection.commit()
    connection.close()
    with caplog.at_level(logging.WARNING), cell.account(folder, read_only=True) as dose:
        assert np.array_equal(dose.dose_map().dose_gy, live)
        assert dose._kept_seq == 0
        if damage is not drop:
            assert [p for p in dose.ledger.verify().problems if "snapshot" in p]


def test_a_snapshot_that_lies_is_found_by_verify(kept, cell):
    from xbat_live.dose.ledger import _checksum

    folder, _ = kept
    connection = sqlite3.connect(folder / "cell.sqlite")
    seq, data = connection.execute("SELECT seq, data FROM snapshots").fetchone()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    header["state"]["open_time_s"] = 0.0
    text = json.dumps(header, sort_keys=True).encode()
    data = len(text).to_bytes(8, "little") + text + data[8 + length :]
    connection.execute("UPDATE snapshots SET data = ?, checksum = ?", (data, _checksum(seq, data)))
    connection.commit()
    connection.close()
    with Ledger(folder / "cell.sqlite", read_only=True) as ledger:
        assert ledger.verify().problems == ("the snapshot of record 4 is not what the records up to it add up to",)


@pytest.mark.parametrize(
    ("changes", "kept_seq", "reason"),
    [
        ({"limits": ()}, 4, "limits do not change what was given"),
        ({"outline_um": (50, 50)}, 4, "nor does the outline"),
        ({"beam": Beam.top_hat(1e10, (20, 20))}, 4, "nor the beam of today"),
        ({"also": ALSO}, 0, "another target needs all records"),
        ({"grid_um": 2.0}, 0, "another map needs all records"),
        ({"model": "energy", "limits": ()}, 0, "so does another dose definition"),
    ],
)
def test_a_snapshot_serves_what_it_was_made_for(kept, cell, changes, kept_seq, reason):
    folder, _ = kept
    with cell.account(folder, read_only=True, **({"limits": (cell.limit(),)} | changes)) as dose:
        assert dose._kept_seq == kept_seq, reason


def test_records_written_beside_the_account_are_not_lost_by_a_snapshot(tmp_path, cell):
    with cell.account(tmp_path, snapshot_every=1) as dose:
        cell.expose(dose, cell.frame())
        entry = next(iter(dose.ledger.records())).entry
        dose.ledger.append(entry)  # a reservation that this account does not know
        cell.expose(dose, cell.frame(5.0))
    with cell.account(tmp_path, read_only=True) as dose:
        assert dose.summary()["records"]["reserve"] == 3
        assert len(dose.unsettled) == 1


def test_records_that_do_not_tell_their_beam_are_read_with_that_of_today_and_not_kept(tmp_path, cell):
    with Ledger(tmp_path / "cell.sqlite") as ledger:
        bare = {
            "x_um": 0.0,
            "y_um": 0.0,
            "energy_ev": 8562.0,
            "open_time_s": 0.048,
            "flux_ph_s": 1e10,
            "on_sample": True,
        }
        for _ in range(3):
            ledger.append(Entry("unreserved", **bare))
    for size_um in (20, 40):
        beam = Beam.top_hat(1e10, (size_um, size_um))
        with cell.account(tmp_path, beam=beam, snapshot_every=1) as dose:
            dose.record_unreserved(cell.frame(300.0), "elsewhere")
            assert dose.dose_at(0, 0).peak_gy == pytest.approx(3 * dose.predict(cell.frame()))
        assert dose._kept_seq == 0


def test_a_snapshot_that_cannot_be_written_does_no_harm(tmp_path, cell, caplog):
    with cell.account(tmp_path, snapshot_every=1) as dose:
        dose.ledger._connection.execute("DROP TABLE snapshots")
        with caplog.at_level(logging.WARNING):
            cell.expose(dose, cell.frame())
        assert "no snapshot kept" in caplog.text
        live = dose.dose_map().dose_gy
    with cell.account(tmp_path, read_only=True) as dose:
        assert np.array_equal(dose.dose_map().dose_gy, live)


def test_closing_keeps_a_snapshot_of_a_long_run(tmp_path, cell, monkeypatch):
    monkeypatch.setattr("xbat_live.dose.snapshots.AT_CLOSE", 6)
    for frames, kept_seq in ((2, 0), (1, 6), (2, 6)):
        with cell.account(tmp_path) as dose:
            for _ in range(frames):
                cell.expose(dose, cell.frame())
        with cell.account(tmp_path, read_only=True) as dose:
            assert dose._kept_seq == kept_seq
