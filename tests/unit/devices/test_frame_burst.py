"""A burst as a flyer: its documents, its pieces, and the camera as it was before."""

from __future__ import annotations

import pytest
from bluesky import RunEngine
from bluesky import plans as bp
from ophyd import Signal

from xbat_live.devices import FrameBurst, FrameWriteError
from xbat_live.plans import Divisible


@pytest.fixture
def burst(camera):
    """Ten frames; the fake camera delivers what it is asked for."""
    start = camera._start_acquisition

    def acquire(done):
        camera.frames_per_acquisition = int(camera.cam.num_images.get())
        start(done)

    camera._start_acquisition = acquire
    return FrameBurst(camera, n_frames=10, exposure_s=0.002, also=[Signal(name="dose", value=1.5)])


def run(plan):
    documents = []
    RunEngine({}, context_managers=[])(plan, lambda name, doc: documents.append((name, doc)))
    return documents


def of(documents, kind):
    return [doc for name, doc in documents if name == kind]


def test_every_frame_is_an_event_with_its_own_row(burst, camera):
    documents = run(bp.fly([burst]))
    (descriptor,) = of(documents, "descriptor")
    key = descriptor["data_keys"]["camera_image"]
    assert (tuple(key["shape"]), key["external"]) == ((1, 6, 8), "FILESTORE:")
    (page,) = of(documents, "event_page")
    assert page["data"]["burst_frame"] == list(range(10))
    assert page["data"]["camera_frame_index"] == list(range(10))
    assert page["data"]["dose"] == [1.5] * 10
    datums = {doc["datum_id"]: doc["datum_kwargs"]["point_number"] for doc in of(documents, "datum")}
    assert [datums[value] for value in page["data"]["camera_image"]] == list(range(10))
    (resource,) = of(documents, "resource")
    assert resource["resource_kwargs"] == {"frame_per_point": 1}
    assert of(documents, "stop")[0]["exit_status"] == "success"


def test_the_camera_is_as_it_was(burst, camera):
    names = ("acquire_time", "acquire_period", "num_images", "image_mode")
    before = [getattr(camera.cam, name).get() for name in names]
    run(bp.fly([burst]))
    assert [getattr(camera.cam, name).get() for name in names] == before
    assert camera._staged.value == "no"


def test_a_camera_staged_by_the_plan_stays_staged_and_goes_on_counting_rows(burst, camera):
    camera.stage()
    burst.take(3)
    burst.kickoff().wait(2)
    burst.complete().wait(2)
    assert [event["data"]["camera_frame_index"] for event in burst.collect()] == [0, 1, 2]
    camera.trigger().wait(2)  # one frame again
    assert camera.frame_index.get() == 3
    camera.unstage()


def test_pieces_are_collected_together(burst):
    for n in (4, 6):
        burst.take(n)
        burst.kickoff().wait(2)
        burst.complete().wait(2)
    assets = list(burst.collect_asset_docs())
    events = list(burst.collect())
    assert [event["data"]["burst_frame"] for event in events] == list(range(10))
    assert [event["data"]["camera_frame_index"] for event in events] == list(range(10))
    assert [name for name, _ in assets].count("datum") == 10
    assert list(burst.collect()) == []


def test_a_discarded_piece_leaves_frames_without_events(burst):
    for number, n in enumerate((2, 3, 3)):
        burst.take(n)
        burst.kickoff().wait(2)
        burst.complete().wait(2)
        if number == 1:
            burst.discard()
    assets = list(burst.collect_asset_docs())
    assert [event["data"]["camera_frame_index"] for event in burst.collect()] == [0, 1, 5, 6, 7]
    assert [name for name, _ in assets].count("datum") == 5


def test_missing_frames_are_an_error_of_the_flight(burst, camera):
    start = camera._start_acquisition

    def too_few(done):
        camera.pending.append(done)
        camera.finish(4)

    camera._start_acquisition = too_few
    burst.take(10)
    burst.kickoff().wait(2)
    with pytest.raises(FrameWriteError, match="4 of 10"):
        burst.complete().wait(5)
    camera._start_acquisition = start
    burst.leave()


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"n_frames": 0}, "at least one"),
        ({"exposure_s": 0.0}, "not positive"),
        ({"exposure_s": 0.1, "period_s": 0.05}, "shorter than the exposure"),
    ],
)
def test_impossible_bursts(camera, options, told):
    with pytest.raises(ValueError, match=told):
        FrameBurst(camera, **options)


def test_the_dose_guard_can_cut_it(camera):
    burst = FrameBurst(camera, n_frames=10, exposure_s=0.02, period_s=0.03)
    assert isinstance(burst, Divisible)
    assert burst.frame_time_s == 0.03
    with pytest.raises(RuntimeError, match="kick it off"):
        burst.complete()
    with pytest.raises(ValueError, match="at least one"):
        burst.take(0)


def test_frames_that_do_not_come_fail_the_flight_when_the_camera_is_given_up(burst, camera, monkeypatch):
    """A status refuses to take over ophyd's own timeout error: the flight heard nothing and waited for its longest time."""
    monkeypatch.setattr(camera, "acquisition_timeout_s", lambda: 0.05)
    camera.hold = True
    burst.take(10)
    burst.kickoff()
    completed = burst.complete()
    with pytest.raises(TimeoutError, match=r"burst: not all frames came within 0\.05 s"):
        completed.wait(timeout=2)
    burst.leave()
