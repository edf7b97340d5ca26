"""Ports and environment of the simulator, and its settings as TOML."""

import dataclasses
import socket
import tomllib
from pathlib import Path

import pytest

from xbat_live.sim.environment import (
    PortTakenError,
    channel_access_environment,
    free_port,
    port_is_free,
    require_free_port,
)
from xbat_live.sim.server import settings_toml
from xbat_live.sim.settings import TwinSettings


def test_client_and_server_stay_on_loopback_and_on_the_port():
    environment = channel_access_environment(26064)
    assert {name for name, value in environment.items() if value == "26064"} == {
        "EPICS_CA_SERVER_PORT",
        "EPICS_CAS_SERVER_PORT",
    }
    assert environment["EPICS_CA_ADDR_LIST"] == environment["EPICS_CAS_INTF_ADDR_LIST"] == "127.0.0.1"
    assert environment["EPICS_CA_AUTO_ADDR_LIST"] == environment["EPICS_CAS_AUTO_BEACON_ADDR_LIST"] == "NO"
    assert environment["EPICS_CA_REPEATER_PORT"] == environment["EPICS_CAS_BEACON_PORT"] == "26065"


@pytest.mark.parametrize("port", [0, 80, 65535, 70000])
def test_impossible_port_is_named(port):
    with pytest.raises(ValueError, match=str(port)):
        channel_access_environment(port)


@pytest.mark.parametrize("kind", ["tcp", "udp", "udp shared"])
def test_taken_port_is_seen(kind):
    """caproto shares its UDP port: TCP alone would not tell."""
    port = free_port()
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM if kind == "tcp" else socket.SOCK_DGRAM) as other:
        if kind == "udp shared":
            other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        other.bind(("127.0.0.1", port))
        if kind == "tcp":
            other.listen()
        assert not port_is_free(port)
        with pytest.raises(PortTakenError, match=f"{port}.*--port"):
            require_free_port(port)
    require_free_port(port)


def test_settings_survive_the_way_through_toml(tmp_path):
    settings = TwinSettings(
        seed=7, sensor_yx=(64, 96), flux_ph_s=3e9, frames=tmp_path / 'a "quoted" name', beam_fwhm_um=(2.5, 30.0)
    )
    file = tmp_path / "sim.toml"
    file.write_text(settings_toml(settings))
    assert TwinSettings.load(file) == settings


def test_relative_frames_path_becomes_absolute():
    text = settings_toml(dataclasses.replace(TwinSettings(), frames=Path("frames")))
    assert tomllib.loads(text)["frames"] == str(Path.cwd() / "frames")
