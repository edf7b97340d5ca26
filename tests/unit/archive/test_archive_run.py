"""What a run hands out: lazily read, labelled, normalised and aligned frames, and the cell on their time base. Real HDF5, no server."""

from __future__ import annotations

from types import SimpleNamespace

import h5py
import numpy as np
import pandas as pd
import pytest

from xbat_live.archive import ArchiveError, Run
from xbat_live.archive.frame_stack import LocalFrames
from xbat_live.imaging import optical_density

SHAPE = (40, 50)
SHIFTS = np.array([[0, 0], [3, -2], [0, 0], [-4, 5], [1, 1]])
DARK, FLAT = 100, 5000


class Node:
    """A stream as Tiled's client shows it."""

    def __init__(self, table, array=None, configuration=None):
        self.base = {"internal": SimpleNamespace(read=lambda: table)} | ({} if array is None else {"image": array})
        self.metadata = {
            "data_keys": {"image": {"external": "FILESTORE:"}, "mono_energy": {"units": "eV"}}
            | {key: {} for key in table},
            "configuration": configuration or {},
        }


class Served:
    """An array as Tiled's client shows it; counts what is read. `source` is the file behind it, if it is told."""

    def __init__(self, values, source=None):
        self.values, self.source, self.reads = values[:, None], source, 0
        self.shape, self.dtype = self.values.shape, values.dtype

    def __getitem__(self, index):
        self.reads += 1
        return self.values[index]

    def data_sources(self):
        return [self.source] if self.source else None


def hdf5_source(path, dataset="/entry/data/data", rows=None):
    return SimpleNamespace(
        mimetype="application/x-hdf5",
        assets=[SimpleNamespace(data_uri=f"file://localhost{path}")],
        parameters={"dataset": dataset, "slice": rows},
    )


def scene(shift_yx):
    y, x = np.mgrid[0 : SHAPE[0], 0 : SHAPE[1]]
    y, x = y - shift_yx[0], x - shift_yx[1]
    return 0.5 + 0.3 * np.sin(0.9 * x + 0.31 * y) * np.cos(0.23 * x - 0.7 * y)


def make_run(*, verdicts=("accepted", "accepted", "blurred", "lost", "accepted"), binning=1, source=None, **columns):
    """Five frames whose content is shifted by `SHIFTS` pixels of the frame; frame 4 could not be registered."""
    n = len(SHIFTS)
    frames = np.stack([DARK + (FLAT - DARK) * np.exp(-scene(s)) for s in SHIFTS]).round().astype(np.uint16)
    primary = pd.DataFrame(
        {
            "seq_num": np.arange(1, n + 1),
            "time": 1.8e9 + 10.0 * np.arange(n),
            "ts_mono_energy": 0.0,
            "mono_energy": 8562.0,
            "stage_x": np.arange(n) / 7,
            "point_dose_gy": 1e3 * np.arange(1, n + 1),
            "point_field": "A",
            **columns,
        }
    )
    sigma = np.where(np.array(verdicts) == "lost", SHAPE[0] * binning / 2, 0.05)
    analysis = pd.DataFrame(
        {
            "seq_num": np.arange(1, n + 1),
            "time": primary["time"],
            "analysis_seq_num": np.arange(1, n + 1),
            "analysis_stream": "primary",
            "analysis_verdict": verdicts,
            "analysis_accepted": [int(v == "accepted") for v in verdicts],
            "analysis_shift_y_px": SHIFTS[:, 0] * binning,
            "analysis_shift_x_px": SHIFTS[:, 1] * binning,
            "analysis_sigma_y_px": sigma,
            "analysis_sigma_x_px": sigma,
        }
    )
    references = pd.DataFrame({"seq_num": [1, 2], "time": 1.8e9, "mono_energy": 8562.0})
    bins = {"camera": {"data": {"camera_cam_bin_x": binning, "camera_cam_bin_y": binning}}}
    client = {
        "primary": Node(primary, Served(frames, source), bins),
        "analysis": Node(analysis),
        "flat": Node(references, Served(np.full((2, *SHAPE), FLAT, np.uint16))),
        "dark": Node(references, Served(np.full((2, *SHAPE), DARK, np.uint16))),
    }
    start = {"uid": "0123abcd-0000-4000-8000-000000000000", "pixel_size_um": 0.1, "sample": "cell-7"}
    return Run(start["uid"], start, {"exit_status": "success"}, tuple(client), client), frames


def test_nothing_is_read_before_it_is_asked_for():
    run, frames = make_run()
    array = run.client["primary"].base["image"]
    density = run.frames(accepted=True, aligned=True, normalised=True)
    part = density[1:, 5:9, 3]
    assert (array.reads, part.shape) == (0, (2, 4))
    assert part.values.shape == (2, 4)
    assert array.reads == 2, "one frame is read for one frame"
    np.testing.assert_array_equal(run.frames().values, frames)


def test_coordinates_have_units_and_the_frame_is_found_by_its_number():
    run, frames = make_run(binning=2)
    counts = run.frames()
    assert counts.dims == ("frame", "y", "x")
    assert counts.dtype == np.uint16
    assert counts.attrs["units"] == "counts"
    np.testing.assert_array_equal(counts.sel(frame=3), frames[2])
    assert counts.time.values[1] == np.datetime64("2027-01-15T08:00:10", "ns")
    assert list(counts.elapsed_s.values) == [0, 10, 20, 30, 40]
    assert list(counts.verdict.values) == ["accepted", "accepted", "blurred", "lost", "accepted"]
    assert {name: counts[name].units for name in ("energy_ev", "stage_x_um", "dose_gy", "y")} == {
        "energy_ev": "eV",
        "stage_x_um": "um",
        "dose_gy": "Gy",
        "y": "um",
    }
    assert counts.y.values[1] - counts.y.values[0] == pytest.approx(0.2), "a pixel of the binned frame, on the sample"
    assert counts.y.values.mean() == pytest.approx(0)


def test_accepted_leaves_out_what_was_rejected():
    run, frames = make_run()
    accepted = run.frames(accepted=True)
    assert list(accepted.frame.values) == [1, 2, 5]
    np.testing.assert_array_equal(accepted.values, frames[[0, 1, 4]])


def test_normalised_is_the_optical_density():
    run, frames = make_run()
    density = run.frames(normalised=True)
    assert density.dtype == np.float32
    for number, frame in enumerate(frames):
        expected = optical_density(frame, np.full(SHAPE, FLAT), np.full(SHAPE, DARK))
        np.testing.assert_allclose(density[number], expected, atol=1e-6)


def expose(rates_per_s, exposures_s, density=0.0):
    """Counts above `DARK` of a beam of so many counts/s/px, by frame."""
    levels = DARK + np.multiply(rates_per_s, exposures_s) * np.exp(-density)
    return np.repeat(levels, np.prod(SHAPE)).reshape(-1, *SHAPE).round().astype(np.uint16)


EXPOSURES = [
    pytest.param([0.5, 0.5], [0.5], 0.0, id="as long as the frames: nothing to bring to them"),
    pytest.param(
        [0.3, 0.3], [0.5], 0.0, id="flats of 0.3 s, frames of 0.5 s, as at SSRL 6-2c: were off by ln(0.5/0.3) = 0.511"
    ),
    pytest.param([0.3, 0.6], [0.05], 0.0, id="flats of several exposures, shorter frames"),
    pytest.param([0.3, 0.3], None, np.log(0.3 / 0.5), id="exposure of the frames not known: flats as they are"),
    pytest.param(None, [0.5], np.log(0.3 / 0.5), id="exposure of the flats not known: flats as they are"),
    pytest.param([0.3, np.nan], [0.5], np.log(0.3 / 0.5), id="of one flat not known: flats as they are"),
]


@pytest.mark.parametrize(("flat_s", "frame_s", "error"), EXPOSURES)
def test_flats_are_brought_to_the_exposure_of_the_frame(flat_s, frame_s, error):
    """Beam 20 000 counts/s/px, sample of optical density 0.7; one count of 10 000 is an error of 1e-4."""
    run, _ = make_run(**({} if frame_s is None else {"point_exposure_s": frame_s * len(SHIFTS)}))
    true_s = [0.3 if not value > 0 else value for value in flat_s or (np.nan, np.nan)]
    frames = expose([20000.0] * len(SHIFTS), [(frame_s or [0.5])[0]] * len(SHIFTS), 0.7)
    run.client["primary"].base["image"] = Served(frames)
    events = pd.DataFrame({"seq_num": [1, 2], "time": 1.8e9, "mono_energy": 8562.0})
    events = events if flat_s is None else events.assign(point_exposure_s=flat_s)
    run.client["flat"] = Node(events, Served(expose([20000.0] * 2, true_s)))
    density = run.frames(normalised=True)
    np.testing.assert_allclose(density.values, 0.7 + error, atol=1e-3)


def test_a_flat_without_its_light_is_not_used():
    """A shutter that opened late: 5000 counts would become 2600, and the sample thinner by ln 2."""
    run, _ = make_run()
    events = pd.DataFrame(
        {"seq_num": [1, 2], "time": 1.8e9, "mono_energy": 8562.0, "point_light_fraction": [0.02, 1.0]}
    )
    flats = expose([1.0, 1.0], [0.02 * (FLAT - DARK), FLAT - DARK])
    expected = run.frames(normalised=True).values
    run.client["flat"] = Node(events, Served(flats))
    np.testing.assert_array_equal(run.frames(normalised=True).values, expected)


@pytest.mark.parametrize("binning", [1, 2])
def test_aligned_undoes_the_registered_shift(binning):
    run, _ = make_run(binning=binning)
    aligned = run.frames(aligned=True, normalised=True).values
    inside = slice(6, -6), slice(6, -6)
    assert np.isfinite(aligned[1][inside]).all()
    np.testing.assert_allclose(aligned[1][inside], aligned[0][inside], atol=2e-3)
    np.testing.assert_allclose(aligned[4][inside], aligned[0][inside], atol=2e-3)
    assert np.isnan(aligned[1][-3:]).all(), "content that was outside the frame is not made up"
    assert np.isnan(aligned[3]).all(), "a frame that was not registered is not shown as if it were"


def test_without_verdicts_all_frames_are_accepted_and_none_can_be_aligned():
    run, frames = make_run()
    run = Run(run.uid, run.start, run.stop, ("primary", "flat", "dark"), run.client)
    assert len(run.frames(accepted=True)) == len(frames)
    assert set(run.frames().verdict.values) == {"unjudged"}
    with pytest.raises(ArchiveError, match=r"not registered .*aligned=False"):
        run.frames(aligned=True)


def test_of_a_rewound_point_the_later_event_counts():
    run, frames = make_run(seq_num=[1, 2, 2, 3, 4])
    found = run.frames()
    assert list(found.frame.values) == [1, 2, 3, 4]
    np.testing.assert_array_equal(found.values, frames[[0, 2, 3, 4]])


def test_events_and_frames_that_do_not_belong_together_are_told():
    run, _ = make_run()
    array = run.client["primary"].base["image"]
    array.shape = (3, *array.shape[1:])
    with pytest.raises(ArchiveError, match="5 Events but 3 frames; try `xbat archive repair`"):
        run.frames()
    going_on = Run(run.uid, run.start, {}, run.streams, run.client)
    assert len(going_on.frames()) == 3, "while it goes on, the Events may be ahead"


INDICES = [
    pytest.param(np.s_[2], id="one"),
    pytest.param(np.s_[-1, 3:9, ::2], id="part of the last"),
    pytest.param(np.s_[1:4, :, 7], id="one column of some"),
    pytest.param(np.s_[::-2, 5], id="backwards"),
    pytest.param(np.s_[[4, 0, 0], :3, :3], id="picked, one twice"),
    pytest.param(np.s_[np.array([True, False, True, False, True])], id="by a mask"),
    pytest.param(np.s_[:, ::-1, :], id="upside down"),
    pytest.param(np.s_[4:1], id="none"),
]


@pytest.mark.parametrize("gaps", [False, True], ids=["rows without gaps", "rows with gaps"])
@pytest.mark.parametrize("index", INDICES)
def test_local_file_is_indexed_like_an_array(index, gaps, tmp_path):
    rows = np.array([0, 2, 3, 5, 6]) if gaps else slice(1, 6)
    stored = np.random.default_rng(0).integers(0, 65536, (7, *SHAPE), dtype="u2")
    with h5py.File(tmp_path / "frames.h5", "w", libver="latest") as file:
        file.create_dataset("/entry/data/data", data=stored, chunks=(1, *SHAPE))
    local = LocalFrames(tmp_path / "frames.h5", "/entry/data/data", rows)
    first, *rest = index if isinstance(index, tuple) else (index,)
    np.testing.assert_array_equal(local.read(first, tuple(rest)), stored[rows][index])


@pytest.mark.parametrize("treated", [False, True])
@pytest.mark.parametrize(
    "index",
    [
        dict(frame=[3, 1], y=[0, 5, 2], x=[9, 8]),
        dict(frame=2, y=[7, 3], x=[1, 1, 4]),
        dict(frame=slice(None, None, -1), y=4),
        dict(frame=[0, 2, 4], x=slice(3, 30, 5)),
        dict(frame=slice(0, 0)),
    ],
    ids=str,
)
def test_labelled_frames_are_indexed_like_xarray(index, treated):
    run, _ = make_run()
    frames = run.frames(normalised=treated)
    np.testing.assert_array_equal(frames.isel(index).values, frames.copy(data=frames.values).isel(index).values)


def test_frames_come_from_the_file_when_it_is_here_and_as_the_archive_says(tmp_path):
    path = tmp_path / "frames.h5"
    run, frames = make_run(source=hdf5_source(path, rows=[0, 1, 3, 4, 5]))
    assert run.frame_stack().file is None, "no such file: through Tiled"
    path.write_bytes(b"no HDF5")
    assert run.frame_stack().file is None
    with h5py.File(path, "w", libver="latest") as file:
        file.create_dataset("/entry/data/data", data=np.insert(frames, 2, 7, axis=0)[:, :-1])
    assert run.frame_stack().file is None, "another shape: not the file that was registered"
    with h5py.File(path, "w", libver="latest") as file:
        file.create_dataset("/entry/data/data", data=np.insert(frames, 2, 7, axis=0))
    stack = run.frame_stack()
    assert stack.file == path
    np.testing.assert_array_equal(stack[:], frames)
    assert run.client["primary"].base["image"].reads == 0
    stack = run.frame_stack()
    path.unlink()
    with pytest.raises(ArchiveError, match=r"cannot read these frames: .*frames\.h5.*missing or damaged"):
        stack[0]


def test_cell_on_the_time_base_of_the_frames():
    run, _ = make_run(potentiostat_voltage_v=[3.1, 3.2, 3.3, 3.4, 3.5], potentiostat_mode="Hold")
    monitor = pd.DataFrame(
        {
            "seq_num": [1, 2],
            "time": [1.8e9, 1.8e9 + 20],
            "potentiostat_soc": [0.2, 0.4],
            "potentiostat_status": ["Running", "Done"],
        }
    )
    run = Run(
        run.uid, run.start, run.stop, (*run.streams, "cell_monitor"), run.client | {"cell_monitor": Node(monitor)}
    )
    cell = run.electrochemistry()
    assert list(cell.voltage_v.values) == [3.1, 3.2, 3.3, 3.4, 3.5]
    assert cell.voltage_v.units == "V"
    np.testing.assert_allclose(cell.state_of_charge, [0.2, 0.3, 0.4, 0.4, 0.4], atol=1e-12)
    assert list(cell.status.values) == ["Running", "Running", "Done", "Done", "Done"]
    assert set(cell["mode"].values) == {"Hold"}
    np.testing.assert_array_equal(cell.frame, run.frames().frame)
    np.testing.assert_array_equal(cell.time, run.frames().time)


def test_a_run_without_a_cell_says_so():
    run, _ = make_run()
    with pytest.raises(ArchiveError, match="run 0123abcd holds nothing of the potentiostat"):
        run.electrochemistry()
