"""The guard's own process: its configuration, its lock, its parent."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from xbat_live.config import load_config, make_config
from xbat_live.watchdog.config_file import read_config, write_config
from xbat_live.watchdog.only_one import GuardLock, OtherProcess
from xbat_live.watchdog.report import Teller

FULL = """
operator = "somebody"
[sample]
name = "cell"
layer = "cathode"
material = "NMC622"
size = ["200 um", "0.1 mm"]
forbidden = [["-10 um", "10 um", "-5 um", "5 um"]]
[[sample.layers]]
name = "window"
thickness = "10 um"
[[sample.layers.parts]]
material = "SiO2"
formula = "SiO2"
density = "2.2 g/cm**3"
[[sample.layers]]
name = "cathode"
thickness = "10 um"
[[sample.layers.parts]]
material = "NMC622"
formula = {Li = 0.07, Ni = 0.93}
density = "4.7 g/cm**3"
fraction = 0.6
[beam]
flux = "2.5e10 ph/s"
ring_reference = "300 mA"
energy = "8.562 keV"
[dose]
limit = "1 MGy"
rate_limit = "300 kGy/s"
policy = ["rest", "halt"]
[[dose.limits]]
preset = "electrolyte_radiolysis"
material = "NMC622"
[[dose.limits]]
rate = "1 kGy/s"
window = "60 s"
[beamline]
prefix = "BL:"
device_prefixes = {shutter = "OTHER:SH:"}
[beamline.channel_access]
port = 12345
[watchdog]
grace = "150 ms"
[archive]
api_key = "secret"
"""


def test_the_experiment_survives_being_handed_over(tmp_path):
    file = tmp_path / "exp.toml"
    file.write_text(FULL)
    config = load_config(file, {"dose.limit": "2 MGy"})
    written = write_config(config, tmp_path / "ledger" / "cell.guard.json")
    again = read_config(written)
    for section in ("sample", "beam", "dose", "beamline", "watchdog"):
        assert getattr(again, section) == getattr(config, section)
    assert again.path(Path("x")) == config.path(Path("x"))
    assert "secret" not in written.read_text()


def test_what_was_handed_over_wins_over_the_environment(tmp_path, monkeypatch):
    config = make_config({"sample": {"name": "cell"}, "beam": {"flux": "1e10 ph/s"}, "dose": {"limit": "2 MGy"}})
    file = write_config(config, tmp_path / "cell.guard.json")
    monkeypatch.setenv("XBAT_DOSE__LIMIT", "9 MGy")
    assert read_config(file).dose.limit_gy == 2e6


def test_one_guard_per_sample(tmp_path):
    ledger = tmp_path / "ledger" / "cell.sqlite"
    with GuardLock(ledger) as first, GuardLock(ledger) as second, GuardLock(tmp_path / "other.sqlite") as other:
        assert first.take(stays=True)
        assert not second.take(stays=True)
        assert second.holder() == (os.getpid(), True)
        assert not second.wait(lambda: True)  # it stays: no use waiting
        assert other.take(stays=False)
    with GuardLock(ledger) as third:
        assert third.take(stays=False)


def test_a_guard_waits_for_one_that_will_leave_and_takes_over(tmp_path):
    ledger = tmp_path / "cell.sqlite"
    first, second = GuardLock(ledger), GuardLock(ledger)
    assert first.take(stays=False)
    asked = []

    def go_on():
        asked.append(1)
        if len(asked) == 3:
            first.__exit__(None, None, None)
        return len(asked) < 50

    with second:
        assert second.wait(go_on)
        assert len(asked) == 3


def test_a_guard_whose_parent_ends_stops_waiting(tmp_path):
    ledger = tmp_path / "cell.sqlite"
    with GuardLock(ledger) as first, GuardLock(ledger) as second:
        first.take(stays=False)
        assert not second.wait(lambda: False)


@pytest.mark.parametrize("old_kernel", [False, True])
def test_whether_the_parent_lives(monkeypatch, old_kernel):
    if old_kernel:

        def unknown(_pid):
            raise OSError("function not implemented")

        monkeypatch.setattr(os, "pidfd_open", unknown)
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        parent = OtherProcess(child.pid)
        assert parent.lives()
        child.kill()
        child.communicate()
        assert not parent.lives()
        assert not OtherProcess(child.pid).lives()


class Stream:
    def __init__(self, *, broken=False):
        self.text, self.broken = "", broken

    def write(self, text):
        if self.broken:
            raise BrokenPipeError
        self.text += text

    def flush(self):
        pass


def test_events_are_lines_for_people_or_for_machines():
    people, machine = Stream(), Stream()
    Teller(people).tell("counted", "open for 1.000 s: 191 kGy", open_time_s=1.0, level=50)
    assert people.text.endswith("ALARM: open for 1.000 s: 191 kGy\n")
    Teller(machine, as_json=True).tell("counted", "open for 1.000 s: 191 kGy", open_time_s=1.0)
    assert '"event": "counted"' in machine.text
    assert '"open_time_s": 1.0' in machine.text


def test_a_state_is_told_once_until_it_changes():
    stream = Stream()
    teller = Teller(stream)
    for event in ("lost", "lost", "back", "back", "lost"):
        teller.once("shutter", event, event)
    assert stream.text.count("\n") == 3
    assert teller.forget("shutter")
    assert not teller.forget("shutter")


def test_a_terminal_that_is_gone_does_not_end_the_guard():
    teller = Teller(Stream(broken=True))
    teller.tell("watching", "x")
    teller.tell("watching", "x")
