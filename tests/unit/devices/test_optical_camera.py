"""The microscope as an optional device: not there, not searched for, unless it is asked for."""

import os

os.environ.setdefault("EPICS_CA_ADDR_LIST", "127.0.0.1")
os.environ.setdefault("EPICS_CA_AUTO_ADDR_LIST", "NO")

import pytest
from ophyd.sim import make_fake_device

from xbat_live.devices import DevicePrefixes, OpticalCamera, TxmBeamline, build_beamline, connection_report
from xbat_live.devices.beamline import OPTICAL_SUFFIX

PREFIX = "XBAT-NOWHERE:"


def searched(beamline: TxmBeamline) -> set[str]:
    return {report.pv for report in connection_report(beamline, timeout_s=0.0)}


def test_without_a_prefix_there_is_no_microscope():
    beamline = build_beamline(DevicePrefixes.from_prefix(PREFIX))
    assert beamline.optical is None
    assert "optical" not in {device.name for device in beamline.devices()}
    assert not {pv for pv in searched(beamline) if ":OPT:" in pv}


def test_with_one_its_pvs_are_needed_like_those_of_the_camera(tmp_path):
    prefixes = DevicePrefixes.from_prefix(PREFIX, optical=PREFIX + OPTICAL_SUFFIX)
    beamline = build_beamline(prefixes, frame_directory=tmp_path / "x", optical_directory=tmp_path / "light")
    assert beamline.devices()[-1] is beamline.optical
    assert (beamline.camera.frame_directory, beamline.optical.frame_directory) == (tmp_path / "x", tmp_path / "light")
    optical = {pv.removeprefix(f"{PREFIX}OPT:") for pv in searched(beamline) if ":OPT:" in pv}
    camera = {pv.removeprefix(f"{PREFIX}CAM:") for pv in searched(beamline) if ":CAM:" in pv}
    assert optical == camera | {"Lamp", "Reference"}


def test_its_frames_go_with_those_of_the_camera_when_no_other_folder_is_given(tmp_path):
    beamline = build_beamline(DevicePrefixes(optical=f"{PREFIX}OPT:"), frame_directory=tmp_path)
    assert beamline.optical.frame_directory == tmp_path


def test_an_unknown_device_is_told_with_the_known_ones():
    with pytest.raises(ValueError, match=r"opticle.*optical"):
        DevicePrefixes.from_prefix(PREFIX, opticle="X:")


def test_an_event_holds_frame_and_lamp():
    camera = make_fake_device(OpticalCamera)(PREFIX, name="optical")
    assert set(camera.read_attrs) >= {"hdf1", "frame_file", "frame_dataset", "frame_index", "lamp"}
    assert "reference" not in camera.read_attrs
