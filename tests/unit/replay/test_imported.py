"""An imported run is replayed as the files it came from would be: same exposures, same configuration, same pixels."""

from __future__ import annotations

from types import SimpleNamespace

import h5py
import numpy as np
import pandas as pd
import pytest
from xradia_files import write_xrm

from xbat_live.replay import ReplayError, load_frames, replay_config
from xbat_live.replay.imported import is_import, load_imported

UID = "3acb6a51-0000-4000-8000-000000000000"
SHAPE = (16, 20)
ENERGIES_EV = (8324.0, 8354.0)


@pytest.fixture
def beamtime(tmp_path):
    """Two energies, two references of 0.3 s and two frames of 0.5 s each, as SSRL 6-2c names and dates them; and as a run."""
    rng, rows = np.random.default_rng(3), {"flat": [], "primary": []}
    images = {"flat": [], "primary": []}
    (tmp_path / "files").mkdir()
    minute = 0
    for energy in ENERGIES_EV:
        for stream, name, exposure_s, x_um in (("flat", "ref_", 0.3, 8322.0), ("primary", "", 0.5, -5178.0)):
            for number in (1, 2):
                minute += 1
                image = rng.integers(100, 4000, SHAPE, dtype="u2")
                write_xrm(
                    tmp_path / "files" / f"{name}cell_{energy:07.1f}_eV_{number:03}of002.xrm",
                    image,
                    exposure_s=exposure_s,
                    position_um=(x_um, 5217.0, 3552.0),
                    dates=(f"05/29/16 15:{minute:02}:00",),
                )
                images[stream].append(image)
                told = {"mono_energy": energy, "point_exposure_s": exposure_s, "stage_x": x_um, "stage_y": 5217.0}
                rows[stream].append({"time": 1.4e9 + 60 * minute, "stage_z": 3552.0, **told})
    tables = {name: pd.DataFrame(part).assign(seq_num=range(1, 5)) for name, part in rows.items()}
    stacks = {name: np.array(part) for name, part in images.items()}
    run = SimpleNamespace(
        uid=UID,
        start={"uid": UID, "plan_name": "import", "sample": "NCA", "pixel_size_um": 0.0312, "imported": {}},
        stop={"exit_status": "success"},
        streams=tuple(tables),
        events=tables.__getitem__,
        analysis=pd.DataFrame,
        frame_stack=stacks.__getitem__,
    )
    return tmp_path / "files", run


def pixels(recording):
    found = []
    for one in recording.exposures:
        with h5py.File(one.frame.file) as file:
            found.append(file[one.frame.dataset][one.frame.index])
    return np.array(found)


def test_as_from_the_files(beamtime, tmp_path):
    files, run = beamtime
    recordings = []
    for name, load in (("a", lambda **to: load_frames(files, **to)), ("b", lambda **to: load_imported(run, **to))):
        (tmp_path / name).mkdir()
        recordings.append(load(scratch=tmp_path / name))
    from_files, from_run = recordings
    assert from_run.uid == UID, "a result in the archive is linked with it"
    assert from_run.start["sample"] == "NCA"
    assert [(e.stream, e.energy_ev, e.stage_um) for e in from_run.exposures] == [
        (e.stream, e.energy_ev, e.stage_um) for e in from_files.exposures
    ]
    np.testing.assert_array_equal(pixels(from_run), pixels(from_files))
    plans = [replay_config(recording, {}).plan for recording in recordings]
    assert plans[0] == plans[1]
    assert (plans[1].name, plans[1].n_points) == ("xanes_series", 2)


def test_the_experiment_file_says_what_headers_do_not(beamtime, tmp_path):
    _, run = beamtime
    (tmp_path / "mine.toml").write_text('[sample]\nname = "mine"\n[beam]\nflux = "3e9 ph/s"\n[dose]\nlimit = "2 MGy"\n')
    recording = load_imported(run, scratch=tmp_path, config_file=tmp_path / "mine.toml")
    config = replay_config(recording, {}, file=tmp_path / "mine.toml")
    assert (config.dose.limit_gy, config.plan.name) == (2e6, "xanes_series")
    assert recording.notes == ()


def test_without_references_it_is_told_how_to_bring_them(beamtime, tmp_path):
    _, run = beamtime
    run.streams = ("primary",)
    with pytest.raises(ReplayError, match=r"run 3acb6a51 has no reference frames, .*import it with --flats"):
        load_imported(run, scratch=tmp_path)


@pytest.mark.parametrize(
    ("start", "told"),
    [
        ({"plan_name": "import", "imported": {}}, True),
        ({"plan_name": "xanes_series", "imported": {}, "config": {}}, False),
        ({"plan_name": "xanes_series"}, False),
    ],
    ids=["frames", "an exported run that came back", "a run"],
)
def test_which_runs_are_frames_alone(start, told):
    assert is_import(start) is told
