"""Runs that cannot be replayed say why and what to do; those that can, though something is missing, say what they go without."""

from __future__ import annotations

import os
from types import SimpleNamespace

import h5py
import numpy as np
import pandas as pd
import pytest
from replay_support import exposure, recording
from typer.testing import CliRunner

from xbat_live.replay import ReplayError, load_run, replay_config
from xbat_live.replay.iocs import _Directed

UID = "0123abcd-0000-4000-8000-000000000000"
STACK = np.arange(1, 1 + 4 * 6 * 8, dtype="u2").reshape(4, 6, 8)


class Served:
    """An array as Tiled's client shows it; the server reads the frames, or answers 500."""

    context = SimpleNamespace(http_client=SimpleNamespace())
    item = {"links": {"full": "http://there/array/full"}}  # noqa: RUF012

    def __init__(self, values, file, *, readable):
        self.values, self.file = values, file
        self.shape, self.dtype = values.shape, values.dtype
        answer = SimpleNamespace(status_code=200 if readable else 500)
        self.context = SimpleNamespace(http_client=SimpleNamespace(get=lambda *_, **__: answer))

    def __getitem__(self, index):
        return self.values[index]

    def data_sources(self):
        asset = SimpleNamespace(data_uri=f"file://localhost{self.file}")
        parameters = {"dataset": "data", "slice": None}
        return [SimpleNamespace(mimetype="application/x-hdf5", assets=[asset], parameters=parameters)]


class Catalog(dict):
    uri = "http://here/api/v1"


class Run(dict):
    def __init__(self, streams, start, stop):
        super().__init__(streams)
        self.metadata = {"start": {"uid": UID, "plan_name": "series", **start}} | ({"stop": stop} if stop else {})

    def validate(self, **_):
        raise OSError("the server's own words")


def archive(file, *, start=None, stop=None, readable=False, seq_num=(1, 2, 3, 4), **columns):
    """A catalog with one run of four frames in `file`."""
    events = pd.DataFrame(
        {
            "seq_num": seq_num,
            "time": 1000.0 + np.arange(4),
            "camera_frame_file": str(file),
            "camera_frame_dataset": "data",
            "camera_frame_index": np.arange(4),
            **columns,
        }
    )
    node = SimpleNamespace(
        base={
            "internal": SimpleNamespace(read=lambda: events),
            "camera_image": Served(STACK, file, readable=readable),
        },
        metadata={"data_keys": {"camera_image": {"external": "FILESTORE:"}}},
    )
    return Catalog({UID: Run({"primary": node}, start or {}, stop)})


@pytest.fixture
def file(tmp_path):
    with h5py.File(tmp_path / "camera.h5", "w", libver="latest") as opened:
        opened.create_dataset("data", data=STACK, chunks=(1, 6, 8))
    return tmp_path / "camera.h5"


DONE = {"exit_status": "success"}


def test_a_run_that_goes_on_is_not_replayed(file, tmp_path):
    with pytest.raises(
        ReplayError, match=r"run 0123abcd has no stop document: it still goes on, or was cut off; .*repair"
    ):
        load_run(archive(file), UID, scratch=tmp_path)


def test_a_replay_is_not_replayed(file, tmp_path):
    with pytest.raises(ReplayError, match="is itself an analysis of 99e47888; replay that one"):
        load_run(archive(file, start={"analysis_of": "99e47888-1"}, stop=DONE), UID, scratch=tmp_path)


@pytest.mark.parametrize(
    ("stop", "told"),
    [
        ({"exit_status": "abort", "reason": "vacuum"}, "the run ended with abort: vacuum"),
        ({"exit_status": "fail", "reason": ""}, "the run ended with fail: no reason given"),
    ],
)
def test_a_run_that_ended_early_is_replayed_as_far_as_it_went_and_says_so(file, tmp_path, stop, told):
    loaded = load_run(archive(file, stop=stop), UID, scratch=tmp_path)
    assert len(loaded.exposures) == 4
    assert told in loaded.notes


def test_frames_that_are_here_are_read_where_they_are(file, tmp_path):
    loaded = load_run(archive(file, stop=DONE), UID, scratch=tmp_path)
    assert {e.frame.file for e in loaded.exposures} == {file}


DAMAGES = [
    pytest.param(lambda file: file.unlink(), id="missing"),
    pytest.param(lambda file: os.truncate(file, file.stat().st_size - 1), id="a byte less"),
]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_frame_file_that_nobody_can_read_is_told_with_the_remedy(file, tmp_path, damage):
    damage(file)
    with pytest.raises(
        ReplayError, match=r"run 0123abcd, frame 1 of primary: .*camera\.h5: .*restore it from a backup"
    ):
        load_run(archive(file, stop=DONE), UID, scratch=tmp_path)


def test_frames_that_are_only_there_are_fetched_each_from_its_row(file, tmp_path):
    """A rewound point has two Events of one number: the row tells the frame, not the number."""
    file.unlink()
    loaded = load_run(archive(file, stop=DONE, readable=True, seq_num=(1, 2, 2, 3)), UID, scratch=tmp_path)
    for number, one in enumerate(loaded.exposures):
        with h5py.File(one.frame.file) as fetched:
            np.testing.assert_array_equal(fetched[one.frame.dataset][one.frame.index], STACK[number])


def test_a_run_without_configuration_asks_for_its_experiment_file():
    with pytest.raises(
        ReplayError, match=r"\(count\) holds no configuration .*name its experiment file: --config FILE"
    ):
        replay_config(recording([exposure(0)], plan_name="count"), {})


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--speed", "-1"], "greater than or equal to 0"),
        (["--speed", "fast"], "should be a valid number"),
        (["--documents", "--speed", "2"], "with --documents there is none"),
    ],
)
def test_a_speed_that_means_nothing_is_refused(arguments, told):
    from xbat_live.cli.main import app

    done = CliRunner().invoke(app, ["replay", "last", *arguments], env={"NO_COLOR": "1", "COLUMNS": "200"})
    assert done.exit_code == 2
    assert told in done.output


def test_an_experiment_file_that_is_none_is_named(tmp_path):
    import tifffile

    from xbat_live.replay import load_frames

    for name in ("a_ref", "b"):
        tifffile.imwrite(tmp_path / f"{name}.tif", np.full((8, 8), 100, "u2"))
    (tmp_path / "mine.toml").write_text("[sample\n")
    with pytest.raises(ReplayError, match=r"mine\.toml: cannot be read as an experiment file"):
        load_frames(tmp_path, scratch=tmp_path, config_file=tmp_path / "mine.toml")


@pytest.mark.parametrize(
    ("speed", "waits_s"),
    [
        pytest.param(0.0, [], id="0: as fast as it goes"),
        pytest.param(1.0, [0.0, 10.0, 30.0], id="1: the run's own pace"),
        pytest.param(4.0, [0.0, 2.5, 7.5], id="4: a quarter of it"),
    ],
)
def test_the_pace_of_the_recording(speed, waits_s, monkeypatch):
    """Exposures at 1000, 1010 and 1030 s, each ready at once: how long after the first each is made."""
    monkeypatch.setattr("time.monotonic", lambda: 500.0)
    directed = _Directed(None, None, None, None, speed)
    messages = [message for time_s in (1000.0, 1010.0, 1030.0) for message in directed._keep_pace(time_s)]
    assert [message.args[0] for message in messages if message.command == "sleep"] == waits_s
