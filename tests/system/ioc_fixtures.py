"""A simulated beamline in its own process and a pyepics client in another.

libca reads its environment once per process: a client in the test process could talk to the port of one simulator only,
whichever test came first. Run as a script this file is that client; tests get the fixture `ioc` by
``ioc = runpy.run_path(...)["ioc"]`` (pytest's importlib mode has no sibling imports).
"""

import contextlib
import os
import pickle
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

import pytest

PREFIX = "IOCTEST:"
TIMEOUT_S = 20.0


class Client:
    """get, put and monitor of the IOC's PVs, names without prefix."""

    def __init__(self, port, prefix=PREFIX):
        from xbat_live.sim.environment import channel_access_environment

        self._process = subprocess.Popen(
            [sys.executable, __file__, prefix],
            env=os.environ | channel_access_environment(port),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )

    def _ask(self, *request):
        pickle.dump(request, self._process.stdin)
        self._process.stdin.flush()
        ok, answer = pickle.load(self._process.stdout)
        if not ok:
            raise AssertionError(f"{request}: {answer}")
        return answer

    def get(self, name, *, text=False):
        """Fresh value; the string of an enum or char waveform with `text`."""
        return self._ask("get", name, text)

    def put(self, name, value):
        """Put and wait for completion."""
        self._ask("put", name, value)

    def send(self, name, value):
        """Put without waiting."""
        self._ask("send", name, value)

    def refused(self, name, value):
        """Put and wait; True if the IOC reported an error."""
        return self._ask("refused", name, value)

    def watch(self, name):
        """Start to record the values of a PV."""
        self._ask("watch", name)

    def seen(self, name, *, least):
        """(server time, value) of every change since `watch`; waits for so many, and for what may come after them."""
        deadline_s = time.monotonic() + TIMEOUT_S
        while len(changes := self._ask("seen", name)) < least:
            assert time.monotonic() < deadline_s, f"{name} changed {len(changes)} times within {TIMEOUT_S} s: {changes}"
        return self._ask("seen", name)

    def eventually(self, name, expected, *, text=False, timeout_s=TIMEOUT_S):
        """Wait until a PV has a value."""
        deadline_s = time.monotonic() + timeout_s
        while (value := self.get(name, text=text)) != expected:
            assert time.monotonic() < deadline_s, f"{name} is {value!r}, not {expected!r}, after {timeout_s} s"
            time.sleep(0.01)

    def close(self):
        """End the client's process."""
        self._process.stdin.close()
        self._process.wait(TIMEOUT_S)
        self._process.stdout.close()


class Ioc(Client):
    """A client of a running simulator, which is `simulator`."""

    def __init__(self, simulator):
        super().__init__(simulator.port, simulator.prefix)
        self.simulator = simulator


@contextlib.contextmanager
def running_ioc(directory, **settings):
    """Simulator and client. Default settings: a small sensor, so that tests are quick."""
    from xbat_live.sim.environment import free_port
    from xbat_live.sim.server import SimulatorProcess
    from xbat_live.sim.settings import TwinSettings

    small = {"sensor_yx": (96, 128), "sample_size_um": (60.0, 60.0), "vibration_probability": 0.0}
    with SimulatorProcess(TwinSettings(**small | settings), PREFIX, free_port(), directory) as simulator:
        client = Ioc(simulator)
        try:
            yield client
        finally:
            client.close()


@pytest.fixture(scope="module")
def ioc(tmp_path_factory):
    """A simulator for the module."""
    with running_ioc(Path(tmp_path_factory.mktemp("ioc"))) as client:
        yield client


class _Server:
    """The other end of `Client`."""

    def __init__(self, prefix):
        import epics

        self._epics, self._prefix = epics, prefix
        self._pvs, self._seen = {}, {}

    def _pv(self, name):
        if name not in self._pvs:
            pv = self._epics.PV(self._prefix + name, auto_monitor=False, connection_timeout=TIMEOUT_S)
            if not pv.wait_for_connection(TIMEOUT_S):
                raise TimeoutError(f"{pv.pvname} does not connect")
            self._pvs[name] = pv
        return self._pvs[name]

    def get(self, name, text):
        value = self._pv(name).get(as_string=text, use_monitor=False, timeout=TIMEOUT_S)
        if value is None:
            raise TimeoutError(f"{name}: no value")
        return value

    def put(self, name, value):
        if self._pv(name).put(value, wait=True, timeout=TIMEOUT_S) != 1:
            raise TimeoutError(f"{name}: put did not complete")

    def send(self, name, value):
        self._pv(name).put(value, wait=False)
        self._epics.ca.flush_io()

    def refused(self, name, value):
        # pyepics does not pass on the status of a put callback; the alarm of the PV tells
        self._pv(name).put(value, wait=True, timeout=TIMEOUT_S)
        fresh = self._epics.PV(self._prefix + name, form="time", auto_monitor=False)
        return fresh.get_timevars(timeout=TIMEOUT_S)["severity"] == 2

    def watch(self, name):
        seen = self._seen[name] = []

        def changed(value, timestamp, **_):
            seen.append((timestamp, value))

        pv = self._epics.PV(self._prefix + name, form="time", auto_monitor=True, callback=changed)
        if not pv.wait_for_connection(TIMEOUT_S):
            raise TimeoutError(name)
        self._pvs["watched " + name] = pv
        deadline_s = time.monotonic() + TIMEOUT_S
        while not seen and time.monotonic() < deadline_s:
            time.sleep(0.005)
        del seen[:-1]  # the value to begin with, which may come more than once

    def seen(self, name):
        time.sleep(0.1)  # monitors on their way
        return [after for before, after in pairwise(list(self._seen[name])) if before[1] != after[1]]


def _serve(prefix):
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # libca's own output is not part of the dialogue
    server = _Server(prefix)
    while True:
        try:
            what, *arguments = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        try:
            answer = (True, getattr(server, what)(*arguments))
        except Exception as error:
            answer = (False, repr(error))
        pickle.dump(answer, out)
        out.flush()


if __name__ == "__main__":
    _serve(sys.argv[1])
