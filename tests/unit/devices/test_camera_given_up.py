"""A camera that is unstaged in the middle of an acquisition: the run was stopped, and must not be called failed for it."""

from __future__ import annotations


def test_an_acquisition_that_is_going_on_at_unstaging_ends_without_a_failure(camera):
    """One Ctrl-C in a long exposure: the plan is left, the camera is unstaged, then the exposure ends, with its counters reset."""
    camera.hold = True
    camera.stage()
    status = camera.trigger()
    camera.unstage()
    assert status.done
    assert status.success  # a failed status of a stopped plan makes bluesky call the run failed
    assert camera.cam.acquire.get() == 0  # and the camera does not go on


def test_its_late_completion_changes_nothing(camera):
    camera.hold = True
    camera.stage()
    camera.trigger()
    camera.unstage()
    camera.finish()  # too late
    camera.hold = False
    camera.stage()
    again = camera.trigger()
    again.wait(timeout=2)
    assert camera.frame_index.get() == 0  # the first frame of the new file


def test_a_frame_that_vanishes_because_of_the_unstaging_is_no_failure(camera, monkeypatch):
    """The completion came first and looks for its frame while the file is being closed."""
    camera.hold = True
    camera.stage()
    status = camera.trigger()

    def closed_meanwhile():
        camera.unstage()
        raise RuntimeError("0 of 1 frames written")

    monkeypatch.setattr(camera, "after_acquisition", closed_meanwhile)
    camera.finish()
    status.wait(timeout=2)
    assert status.success
