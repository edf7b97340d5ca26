"""Channel Access can be configured once, before ophyd; importing the devices package must not be too late."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from xbat_live.devices import BeamlineConnectionError, DevicePrefixes, build_beamline, wait_for_connection
from xbat_live.devices.epics import ChannelAccessError, configure_channel_access, set_default_timeouts

_BEFORE = """
import os, sys
from xbat_live.devices import configure_channel_access, set_default_timeouts
assert "ophyd" not in sys.modules
configure_channel_access({"EPICS_CA_ADDR_LIST": "127.0.0.1", "EPICS_CA_SERVER_PORT": "26999"})
assert os.environ["EPICS_CA_SERVER_PORT"] == "26999"
import ophyd
configure_channel_access({"EPICS_CA_ADDR_LIST": "127.0.0.1"})  # the same again is no error
set_default_timeouts()
set_default_timeouts()
signal = ophyd.EpicsSignalRO("X", name="x")
assert (signal.connection_timeout, signal.timeout, signal.write_timeout) == (5.0, 3.0, 3.0)
try:
    set_default_timeouts(read_s=9.0)
except RuntimeError as error:
    assert "too late" in str(error)
else:
    raise SystemExit("accepted")
"""


def test_the_package_can_be_imported_before_channel_access_is_configured():
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "EPICS_CA_AUTO_ADDR_LIST": "NO"}
    command = [sys.executable, "-c", _BEFORE]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 0, result.stderr


def test_other_values_after_ophyd_was_imported_are_an_error_that_names_them(monkeypatch):
    import ophyd  # noqa: F401

    monkeypatch.setenv("EPICS_CA_SERVER_PORT", "5064")
    with pytest.raises(
        ChannelAccessError, match=r"EPICS_CA_SERVER_PORT='5064' \(wanted '26999'\).*before importing ophyd"
    ):
        configure_channel_access({"EPICS_CA_SERVER_PORT": "26999"})


def test_timeouts_too_late_are_an_error():
    import ophyd

    ophyd.EpicsSignalRO("XBAT-NOWHERE:A", name="a")
    with pytest.raises(ChannelAccessError, match="exist already"):
        set_default_timeouts(connection_s=77.0)


def test_missing_pvs_are_named_with_the_addresses_searched():
    beamline = build_beamline(DevicePrefixes.from_prefix("XBAT-NOWHERE:"))
    with pytest.raises(BeamlineConnectionError, match="EPICS_CA_ADDR_LIST") as caught:
        wait_for_connection(beamline, timeout_s=0.05)
    for pv in (
        "XBAT-NOWHERE:TXM:X.RBV",
        "XBAT-NOWHERE:CAM:cam1:Acquire",
        "XBAT-NOWHERE:SH:Cmd",
        "XBAT-NOWHERE:I0:Current_RBV",
    ):
        assert pv in caught.value.missing
        # two hundred names would fill two screens: one per group, and how many more
        assert pv.rpartition(":")[0] in str(caught.value)
    assert "xbat sim" in str(caught.value)
    for device in beamline.devices():
        device.destroy()


def test_prefixes_of_single_devices_can_be_moved():
    prefixes = DevicePrefixes.from_prefix("BL6:", camera="32idcPG3:")
    assert (prefixes.camera, prefixes.stage, prefixes.ring) == ("32idcPG3:", "BL6:TXM:", "BL6:RING:")
    with pytest.raises(ValueError, match="unknown device detector; known: stage, camera"):
        DevicePrefixes.from_prefix("BL6:", detector="X:")
