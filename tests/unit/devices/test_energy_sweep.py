"""An energy sweep as a flyer: energies from the encoder in the frame file, documents by StreamDatum, a dose for all energies."""

from __future__ import annotations

import h5py
import numpy as np
import pytest
from ophyd.status import Status

from xbat_live.devices import EnergySweep, FrameRows, SweepError
from xbat_live.devices.bragg import bragg_deg, energy_of_bragg_ev
from xbat_live.plans import NeedsBeam

N = 6


class StubAxis:
    """A motor that arrives at once."""

    def __init__(self):
        self.moves = []
        self.status = None

    def set(self, position):
        self.moves.append(position)
        return self.status

    def stop(self, *, success=False):
        self.moves.append("stopped")


class StubCamera:
    """Delivers what the test put into its file."""

    name, prefix = "camera", "CAM:"

    def __init__(self, rows):
        self.rows, self.last_rows = rows, None

    def make_data_key(self):
        return {"source": "PV:CAM:", "dtype": "array", "shape": [1, 4, 5], "units": "counts"}

    def acquire_rows(self, n):
        done = Status()
        self.last_rows = self.rows
        done.set_finished()
        return done, self.rows


class StubMono:
    def __init__(self):
        self.bragg = StubAxis()


@pytest.fixture
def frame_file(tmp_path):
    """Nine captured frames: two darks before, then six of the sweep, one after."""
    path = tmp_path / "frames.h5"
    angles = np.concatenate([[14.0, 14.0], np.linspace(13.83, 12.87, N), [12.87]])
    with h5py.File(path, "w") as file:
        file["/entry/instrument/NDAttributes/MonoBragg"] = angles
        file["/entry/instrument/NDAttributes/NDArrayTimeStamp"] = np.arange(9.0)
    return path


def sweep_of(path, *, first=0, first_captured=2, **options):
    rows = FrameRows(path, "/entry/data/data", first, N, first_captured)
    return EnergySweep(StubCamera(rows), StubMono(), n_frames=N, exposure_s=0.01, period_s=0.02, **options)


def fly(sweep):
    sweep.kickoff().wait(2)
    sweep.complete().wait(2)


def test_bragg_and_energy_are_inverse():
    energies = np.array([8266.0, 8333.0, 8878.0])
    assert energy_of_bragg_ev(bragg_deg(energies)) == pytest.approx(energies, abs=1e-9)
    assert bragg_deg(8333.0) == pytest.approx(13.7246, abs=1e-3)  # Si(111), d = 3.1356 angstrom


def test_energies_are_those_of_the_encoder_and_not_evenly_spaced(frame_file):
    sweep = sweep_of(frame_file)
    fly(sweep)
    assert sweep.energy_ev == pytest.approx(energy_of_bragg_ev(np.linspace(13.83, 12.87, N)))
    steps = np.diff(sweep.energy_ev)
    assert (steps > 0).all()
    assert np.ptp(steps) > 1.0
    assert sweep.read()["cube_time_s"]["value"] == [2.0, 3.0, 4.0, 5.0, 6.0, 7.0]


def test_documents_of_cubes_in_one_file(frame_file):
    sweep = sweep_of(frame_file)
    fly(sweep)
    (first, resource), (second, datum) = sweep.collect_asset_docs()
    assert (first, second) == ("stream_resource", "stream_datum")
    assert resource["parameters"]["multiplier"] == N
    assert resource["uri"].endswith("frames.h5")
    assert datum["indices"] == {"start": 0, "stop": 1}
    assert sweep.describe()["camera_image"]["shape"] == [N, 4, 5]
    assert sweep.describe()["camera_image"]["external"] == "STREAM:"
    sweep.camera.rows = FrameRows(frame_file, "/entry/data/data", N, N, 3)
    fly(sweep)
    ((name, datum),) = sweep.collect_asset_docs()
    assert (name, datum["indices"]) == ("stream_datum", {"start": 1, "stop": 2})
    assert list(sweep.collect_asset_docs()) == []


def test_a_cube_behind_an_incomplete_one_is_refused(frame_file):
    sweep = sweep_of(frame_file, first=4)
    fly(sweep)
    with pytest.raises(SweepError, match="row 4"):
        list(sweep.collect_asset_docs())


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (lambda file: file.pop("/entry/instrument/NDAttributes/MonoBragg"), "NDAttribute MonoBragg"),
        (
            lambda file: file["/entry/instrument/NDAttributes/MonoBragg"].write_direct(np.full(9, 13.5)),
            "stayed at 13.5 deg",
        ),
    ],
    ids=["no encoder", "the encoder stands still"],
)
def test_a_sweep_without_energies_is_an_error(frame_file, spoil, told):
    with h5py.File(frame_file, "a") as file:
        spoil(file)
    sweep = sweep_of(frame_file)
    sweep.kickoff().wait(2)
    with pytest.raises(SweepError, match=told):
        sweep.complete().wait(2)


def test_a_monochromator_that_hardly_moved_is_told_by_its_encoder(frame_file):
    """A cube like that once had an Event, with the same energy in nearly every frame."""
    sweep = sweep_of(frame_file)
    fly(sweep)
    assert sweep.covered == pytest.approx(1.0, abs=0.02)
    with h5py.File(frame_file, "r+") as file:
        file["/entry/instrument/NDAttributes/MonoBragg"][2:8] = [12.90, 12.88, 12.87, 12.87, 12.87, 12.87]
    fly(sweep)
    assert sweep.covered < 0.05


def test_the_move_of_a_cube_may_outlast_its_frames(frame_file):
    sweep = sweep_of(frame_file)
    moved = sweep.mono.bragg.status = Status()
    assert not sweep.moving
    fly(sweep)
    assert sweep.moving
    moved.set_finished()
    moved.wait(2)
    assert not sweep.moving


def test_the_move_reaches_beyond_the_energies_in_both_directions(frame_file):
    sweep = sweep_of(frame_file)
    assert isinstance(sweep, NeedsBeam)
    assert sweep.beam_time_s == pytest.approx(N * 0.02 + 0.15)
    begin, end = sweep.way_deg
    assert begin > sweep.ends_deg[0] > sweep.ends_deg[1] > end
    sweep.reverse = True
    begin, end = sweep.way_deg
    assert begin < sweep.ends_deg[1] < sweep.ends_deg[0] < end
    fly(sweep)
    assert sweep.mono.bragg.moves == [end]


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"n_frames": 1}, "at least two energies"),
        ({"exposure_s": 0.0}, "not positive"),
        ({"exposure_s": 0.05, "period_s": 0.02}, "shorter than the exposure"),
        ({"start_ev": 8300.0, "stop_ev": 8300.0}, "two different energies"),
        ({"start_ev": 100.0}, "does not reflect"),
    ],
)
def test_impossible_sweeps(options, told):
    with pytest.raises(ValueError, match=told):
        EnergySweep(StubCamera(None), StubMono(), **options)
