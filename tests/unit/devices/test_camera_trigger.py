"""A trigger has exactly one ending: the frame is on disk, or an error that says what is wrong."""

from __future__ import annotations

import threading

import pytest
from ophyd.utils import DisconnectedError, StatusTimeoutError

from xbat_live.devices import FrameWriteError


def test_the_status_is_returned_even_when_the_exposure_is_over_before_trigger_returns(camera):
    """Race A of ophyd's SingleTrigger: it returns ``self._status``, which is None by then."""
    camera.stage()
    camera._start_acquisition = lambda done: (camera.capture(1), done())
    status = camera.trigger()
    status.wait(timeout=2)
    assert status.success


def test_a_late_completion_of_the_last_trigger_does_not_end_this_one(camera):
    """Race B: finishing first and clearing afterwards would wipe the status of a trigger made in between."""
    camera.hold = True
    camera.stage()
    first = camera.trigger()
    late = camera.pending[0]
    camera.finish()
    first.wait(timeout=2)
    second = camera.trigger()
    late()  # e.g. a duplicate notification that was queued
    assert not second.done
    camera.finish()
    second.wait(timeout=2)
    assert second.success


def test_retriggering_from_the_completion_of_the_last_trigger_never_loses_a_status(camera):
    """What a RunEngine does: trigger again as soon as the status is done, a few hundred times, from another thread."""
    camera.stage()
    for _ in range(200):
        camera.trigger().wait(timeout=5)
    assert camera.frame_index.get() == 199


@pytest.mark.parametrize(
    ("exposure_s", "period_s", "images", "timeout_s"),
    [
        (0.048, 0.0, 1, 20.048),  # the paper's exposure: twenty seconds beyond it
        (60.0, 0.0, 1, 80.0),  # long exposures are waited for
        (1.0, 0.0, 10, 30.0),  # several images add up
        (0.1, 2.0, 3, 26.0),  # a period longer than the exposure counts instead of it
    ],
)
def test_trigger_timeout_is_exposure_times_images_plus_twenty_seconds(camera, exposure_s, period_s, images, timeout_s):
    camera.cam.acquire_time.sim_put(exposure_s)
    camera.cam.acquire_period.sim_put(period_s)
    camera.cam.num_images.sim_put(images)
    assert camera.acquisition_timeout_s() == pytest.approx(timeout_s)


def test_a_camera_that_never_finishes_fails_the_trigger(camera, monkeypatch):
    monkeypatch.setattr(camera, "acquisition_timeout_s", lambda: 0.05)
    camera.hold = True
    camera.stage()
    status = camera.trigger()
    with pytest.raises(StatusTimeoutError):
        status.wait(timeout=2)
    camera.finish()  # too late: the frame is an orphan, and nothing is raised
    camera.hold = False
    again = camera.trigger()
    again.wait(timeout=2)
    assert camera.frame_index.get() == 1


def test_losing_the_connection_fails_the_trigger_at_once(camera):
    camera.hold = True
    camera.stage()
    status = camera.trigger()
    camera.cam.acquire._run_subs(sub_type="meta", connected=False)
    with pytest.raises(DisconnectedError, match="FAKE:"):
        status.wait(timeout=2)


def test_an_unstaged_camera_refuses_to_trigger(camera):
    with pytest.raises(RuntimeError, match="not staged"):
        camera.trigger()


@pytest.mark.parametrize(
    ("frames", "write_status", "reason"),
    [
        (0, 0, "no frame was captured, e.g. the plugin is switched off"),
        (0, 1, "the plugin tried and failed: disk full"),
        (1, 1, "captured, but not written: some plugins count before they write"),
    ],
)
def test_a_frame_that_is_not_on_disk_fails_the_trigger_with_file_folder_and_the_iocs_words(
    camera, monkeypatch, frames, write_status, reason
):
    monkeypatch.setattr("xbat_live.devices.file_store._MAX_LAG_S", 0.02)
    camera.hold = True
    camera.stage()
    status = camera.trigger()
    camera.hdf1.write_status.sim_put(write_status)
    camera.hdf1.write_message.sim_put("No space left on device")
    camera.finish(frames)
    with pytest.raises(FrameWriteError, match="No space left on device") as caught:
        status.wait(timeout=2)
    message = str(caught.value)
    assert str(camera.frame_directory) in message
    assert camera.hdf1.full_file_name.get() in message
    assert "camera.directory" in message, reason


def test_captured_count_may_come_later_than_the_end_of_the_acquisition(camera):
    """A real IOC updates readbacks in another thread than the one that ends the acquisition."""
    camera.hold = True
    camera.stage()
    status = camera.trigger()
    threading.Timer(0.05, camera.capture, [1]).start()
    camera.finish(0)
    status.wait(timeout=2)
    assert camera.frame_index.get() == 0
