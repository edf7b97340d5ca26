"""`xbat watch` in a terminal: real sockets, a real pseudo terminal, and a run that does not notice."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import threading
import time
from pathlib import Path

import live_fixtures
import pytest
from pretend_run import EXPERIMENT, PretendRun
from typer.testing import CliRunner

from xbat_live.cli.main import app
from xbat_live.cli.terminal import TerminalView, shown
from xbat_live.live.feed import LiveFeed
from xbat_live.live.following import FeedClient, FeedNotReachable, find_feeds

feed, folder = live_fixtures.feed, live_fixtures.folder


def begin(feed: LiveFeed, run: PretendRun, frames: int = 3) -> None:
    for document in (*run.begin(), *(document for _ in range(frames) for document in run.frame())):
        feed(*document)


def end(feed: LiveFeed, run: PretendRun, *how: str) -> None:
    for document in run.end(*how):
        feed(*document)


class Watched(LiveFeed):
    """Knows when somebody watches: who comes first only asks whether it answers."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, name="test")
        self.came = threading.Semaphore(0)

    async def _welcome(self, reader, writer):
        self.came.release()
        await super()._welcome(reader, writer)

    def wait(self) -> None:
        for _ in range(2):
            self.came.acquire(timeout=20)


@contextlib.contextmanager
def run_that_ends_when_watched(path: Path, ending: str = "success"):
    """A run under way in another thread."""

    def play() -> None:
        with Watched(path) as feed:
            run = PretendRun(t0=time.time())
            feed.show(experiment=EXPERIMENT)
            begin(feed, run)
            begun.set()
            feed.wait()
            for document in run.decision("relocate", "limit reached"):
                feed(*document)
            if ending:
                end(feed, run, ending)

    begun = threading.Event()
    thread = threading.Thread(target=play)
    thread.start()
    assert begun.wait(10)
    yield
    thread.join(30)


def watch(*arguments: str):
    return CliRunner().invoke(app, ["watch", *arguments], env={"NO_COLOR": "1", "COLUMNS": "200"})


# --- what it says ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("arguments", [[], ["--run", "electrode-7"], ["--json"]])
def test_without_a_run_it_says_so_and_what_to_do(folder, arguments):
    found = watch(*arguments)
    assert found.exit_code == 3
    assert "no run of this user is going on here; start one with `xbat run`" in found.stderr


def test_a_pipe_gets_plain_lines_until_the_run_is_over(folder):
    with run_that_ends_when_watched(folder / "run-1.feed"):
        found = watch()
    assert found.exit_code == 0, found.output
    assert "\x1b" not in found.output
    assert "RUNNING | point 2/60 | spot 1 | dose 9 kGy of 120 kGy (8 %) | 3 taken, 3 accepted" in found.output
    assert "relocate: limit reached" in found.output
    assert "ENDED | point 2/60" in found.output


def test_a_machine_gets_one_object_a_line_and_nothing_else(folder):
    with run_that_ends_when_watched(folder / "run-1.feed", ending="fail"):
        found = watch("--json")
    assert found.exit_code == 0
    told_records = [json.loads(line) for line in found.stdout.splitlines()]
    kinds = [record["type"] for record in told_records]
    assert {"run", "frame", "event", "status"} <= set(kinds)
    assert [record["n"] for record in told_records if record["type"] == "frame"] == [1, 2, 3]
    assert told_records[-1]["type"] == "status"
    assert told_records[-1]["state"] == "FAILED"


def test_a_process_that_is_gone_before_its_run_has_ended_is_an_error(folder):
    with run_that_ends_when_watched(folder / "run-1.feed", ending=""):
        found = watch()
    assert found.exit_code == 1
    assert "ended before its run did" in found.stderr


def test_something_else_behind_the_socket_is_refused(folder):
    path = folder / "run-7.feed"
    path.touch()
    assert find_feeds() == []
    with pytest.raises(FeedNotReachable, match="does not answer"):
        FeedClient(path)


# --- on a terminal -------------------------------------------------------------------------------------------------------


class Terminal:
    """A pseudo terminal of 80 x 24 with a command in it."""

    def __init__(self, *command: str, **environment: str) -> None:
        self.master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        keep = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES", "NO_COLOR")}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "xbat_live.cli.main", *command],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env=keep | {"TERM": "xterm-256color"} | environment,
            # a shell's background job starts with Ctrl-C ignored, and so would what the tests start there
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
        )
        os.close(slave)
        self.text = ""

    def until(self, words: str, timeout_s: float = 30.0) -> str:
        end_s = time.monotonic() + timeout_s
        while words not in self.plain:
            assert time.monotonic() < end_s, self.plain
            if select.select([self.master], [], [], 0.2)[0]:
                try:
                    self.text += os.read(self.master, 65536).decode(errors="replace")
                except OSError:  # it has ended
                    assert words in self.plain, self.plain
        return self.plain

    @property
    def plain(self) -> str:
        return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", self.text)

    def interrupt(self) -> None:
        """What a terminal does at Ctrl-C."""
        self.process.send_signal(signal.SIGINT)

    def close(self) -> int:
        try:
            return self.process.wait(20)
        finally:
            self.process.kill()
            os.close(self.master)


def test_ctrl_c_leaves_the_run_alone_and_says_so(folder, feed):
    run = PretendRun(t0=time.time())
    begin(feed, run)
    terminal = Terminal("watch", NO_COLOR="1")
    text = terminal.until("Ctrl-C leaves; the run goes on")
    assert max(len(line) for line in text.replace("\r", "\n").splitlines()) <= 80
    for document in run.frame("blurred", dose_gy=27e3):
        feed(*document)
    terminal.until("27 kGy of 120 kGy (22 %)")
    terminal.interrupt()
    terminal.until("no longer watched; the run goes on (`xbat stop` ends it)")
    assert terminal.close() == 0
    assert not re.search(r"\x1b\[[0-9;]*3[0-7]m", terminal.text)  # NO_COLOR
    assert "\x1b[?25h" in terminal.text  # the cursor is back
    for document in run.frame(dose_gy=36e3):  # the run goes on
        feed(*document)
    with FeedClient(feed.path) as other:
        first = next(message for message in other.messages(1.0) if message and message["type"] == "data")
        assert first["state"]["counts"]["frames"] == 5


def test_a_process_that_hangs_is_told(folder, feed):
    """Stopped like a debugger would: the socket is there, nothing comes."""
    run = PretendRun(t0=time.time())
    begin(feed, run)
    terminal = Terminal("watch")
    terminal.until("RUNNING")
    feed._loop.call_soon_threadsafe(time.sleep, 4.0)
    terminal.until("the acquisition does not answer")
    terminal.interrupt()
    assert terminal.close() == 0


# --- in the process of the run itself -------------------------------------------------------------------------------------


def test_the_run_shows_itself_without_a_socket():
    """Also where the runtime folder cannot be used."""
    said = []
    with LiveFeed(None) as alone:
        view = TerminalView(_Console(), lambda text, style: said.append(text))
        with shown(alone, view):
            run = PretendRun(t0=time.time())
            begin(alone, run)
            end(alone, run)
    assert said[0] == "start: operando_txm_series of electrode-7"
    assert said[-1].startswith("ENDED | point 2/60 | spot 1 | dose 9 kGy of 120 kGy (8 %) | 3 taken, 3 accepted")


def test_a_terminal_that_does_not_take_anything_holds_up_no_run(feed):
    never = threading.Event()
    view = TerminalView(_Console(), lambda text, style: never.wait(20))
    with shown(feed, view):
        begin(feed, PretendRun(), frames=200)
        message, _ = feed.news(None)
        assert message["state"]["counts"]["frames"] == 200
        never.set()


class _Console:
    is_terminal = False
