"""A hub in a thread and a feed in this process: everything but the browser."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from pretend_run import EXPERIMENT

from xbat_live.live.feed import LiveFeed
from xbat_live.live.hub.security import Tokens
from xbat_live.live.hub.serving import listen, make_server


def until(condition: Callable[[], Any], timeout_s: float = 10.0) -> Any:
    """Wait for something that happens in another thread."""
    end_s = time.monotonic() + timeout_s
    while not (value := condition()):
        assert time.monotonic() < end_s, "it did not happen in time"
        time.sleep(0.01)
    return value


@dataclass
class RunningHub:
    port: int
    tokens: Tokens
    folder: Path
    server: Any

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.port}/live"

    @property
    def http(self) -> str:
        return f"http://127.0.0.1:{self.port}"


class HubThread:
    """Starts a hub; `port` 0 takes a free one."""

    def __init__(self, folder: Path, *, port: int = 0, origins: tuple[str, ...] = ()) -> None:
        ready = threading.Event()
        self.socket = listen("127.0.0.1", port)
        self.server = make_server(self.socket, folder, origins=origins, ready=ready.set)
        self.thread = threading.Thread(target=self.server.run, kwargs={"sockets": [self.socket]}, daemon=True)
        self.thread.start()
        assert ready.wait(10)
        self.hub = RunningHub(self.socket.getsockname()[1], Tokens.in_folder(folder), folder, self.server)

    def stop(self) -> None:
        self.server.should_exit = True
        self.thread.join(10)
        self.socket.close()


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    place = tmp_path / "rt"
    place.mkdir(mode=0o700)
    monkeypatch.setenv("XBAT_RUNTIME_DIR", str(place))
    return place


@pytest.fixture
def hub(folder) -> RunningHub:
    running = HubThread(folder, origins=("https://beamline.example.org",))
    yield running.hub
    running.stop()


@pytest.fixture
def feed(folder) -> LiveFeed:
    with LiveFeed(folder / "run-1.feed", name="test") as live:
        live.show(experiment=EXPERIMENT)
        yield live
