"""Frames of a run by field of view: which count, in what order, how they are corrected, what is said when there are none."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from xbat_live.analysis import AnalysisError, FieldKey, RunFrames
from xbat_live.archive import ArchiveError
from xbat_live.imaging import optical_density


def test_fields_are_told_apart_and_only_accepted_frames_count(make_run):
    run = make_run(6, n_fields=2, shape=(64, 64), blurred=[3, 4, 7])
    frames = RunFrames(run)
    assert frames.fields == {FieldKey(0, "B", 8562.0): 5, FieldKey(0, "A", 8562.0): 4}
    a = frames.select(field="A")
    assert a.seq_num.tolist() == [1, 5, 9, 11]  # A has the odd Events, 3 and 7 were blurred
    assert a.verdicts == {"accepted": 4, "blurred": 2}
    np.testing.assert_array_equal(a.frame(2), run.images["primary"][4])
    assert frames.select().key.field == "B", "by default the field with most accepted frames"


def test_nothing_is_read_before_it_is_asked_for_and_then_one_frame(make_run):
    run = make_run(5, shape=(64, 64))
    field = RunFrames(run).select()
    assert run.reads == []
    field.frame(3)
    assert run.reads == [("primary", 2)]


def test_a_frame_is_corrected_with_the_flats_nearest_in_time(make_run):
    run = make_run(5, shape=(64, 64))
    field = RunFrames(run).select()
    density = field.optical_density(1)
    flat, dark = (
        run.images["flat"][:8].mean(0),
        run.images["dark"].mean(0),
    )  # ten flats over the run: the first eight are nearest
    np.testing.assert_allclose(density, optical_density(run.images["primary"][0], flat, dark), atol=1e-5)
    assert {row for stream, row in run.reads if stream == "flat"} == set(range(8))
    read = len(run.reads)
    field.optical_density(1)
    assert len(run.reads) == read + 1, "references are kept"


def test_flats_of_another_exposure_are_brought_to_that_of_the_frame(make_run):
    run = make_run(5, shape=(64, 64))
    before = RunFrames(run).select().optical_density(5)
    run.tables["primary"]["point_exposure_s"] = 0.5
    run.tables["flat"]["point_exposure_s"] = 0.3
    after = RunFrames(run).select().optical_density(5)
    np.testing.assert_allclose(after - before, np.log(0.5 / 0.3), atol=1e-5)


def test_flats_of_another_energy_are_not_used(make_run):
    run = make_run(5, shape=(64, 64))
    run.tables["flat"]["mono_energy"] = [8562.0] * 3 + [8333.0] * 7
    RunFrames(run).select().optical_density(5)
    assert {row for stream, row in run.reads if stream == "flat"} == {0, 1, 2}


def test_a_run_without_flats_and_darks_gives_the_logarithm_of_its_counts(make_run):
    run = make_run(5, shape=(64, 64))
    for stream in ("flat", "dark"):
        del run.tables[stream], run.images[stream]
    density = RunFrames(run).select().optical_density(1)
    np.testing.assert_allclose(density, -np.log(run.images["primary"][0].astype(float)), atol=1e-5)


def test_energies_are_fields_of_their_own(make_run):
    run = make_run(8, shape=(64, 64))
    run.tables["primary"]["mono_energy"] = [8333.0, 8333.04, 8340.0, 8340.0, 8340.0, 8340.0, 8562.0, 8562.0]
    frames = RunFrames(run)
    assert frames.select().key.energy_ev == 8340.0
    assert len(frames.select(energy_ev=8333.0)) == 2


def test_a_rewound_point_counts_once_with_its_last_verdict(make_run):
    run = make_run(5, shape=(64, 64))
    again = run.verdicts.iloc[[1]].assign(analysis_accepted=0, analysis_verdict="blurred")
    run.verdicts = pd.concat([run.verdicts, again], ignore_index=True)
    assert RunFrames(run).select().seq_num.tolist() == [1, 3, 4, 5]


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ({"field": "C"}, "no accepted frames of field C .*There are field A, spot 0, 8562 eV: 5"),
        ({"spot": 4}, "no accepted frames of spot 4"),
        ({"energy_ev": 7000.0}, "no accepted frames of 7000 eV"),
    ],
)
def test_a_field_that_is_not_there_is_told_with_those_that_are(make_run, wanted, message):
    with pytest.raises(AnalysisError, match=message):
        RunFrames(make_run(5, shape=(64, 64))).select(**wanted)


def test_a_run_without_accepted_frames_is_told_with_its_verdicts(make_run):
    run = make_run(5, shape=(64, 64), blurred=range(1, 6))
    with pytest.raises(AnalysisError, match=r"run 0123abcd: no accepted frames \(5 blurred\)"):
        RunFrames(run).select()


def test_runs_that_cannot_be_analysed_say_why(make_run):
    run = make_run(5, shape=(64, 64))
    with pytest.raises(AnalysisError, match="frame 6: field A, spot 0, 8562 eV has accepted frames 1 to 5"):
        RunFrames(run).select().frame(6)
    run.start = {}
    with pytest.raises(AnalysisError, match="pixel_size_um"):
        RunFrames(run)
    assert RunFrames(run, pixel_size_um=0.56).pixel_size_um == 0.56
    run.images["primary"] = run.images["primary"][:3]
    with pytest.raises(ArchiveError, match="5 Events but 3 frames"):
        RunFrames(run, pixel_size_um=0.56)
    run.tables.pop("primary")
    with pytest.raises(AnalysisError, match="no stream 'primary'"):
        RunFrames(run)
