"""The hub by its protocol, with a websocket and no browser: who gets in, what they get, and what they cost."""

from __future__ import annotations

import json
import os
import struct
import threading
import time
from contextlib import ExitStack, suppress

import httpx
import live_fixtures
import numpy as np
import pytest
from live_fixtures import HubThread, until
from pretend_run import PretendRun
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from xbat_live.live.feed import LiveFeed
from xbat_live.live.hub.security import Tokens
from xbat_live.live.previews import FrameView

feed, folder, hub = live_fixtures.feed, live_fixtures.folder, live_fixtures.hub

GOOD_ORIGIN = "http://127.0.0.1:{port}"


OPEN: list[Watcher] = []


@pytest.fixture(autouse=True)
def _hang_up():
    yield
    while OPEN:
        OPEN.pop().close()


class Watcher:
    """A viewer that acknowledges what it gets, or does not."""

    def __init__(self, hub, token=None, *, acknowledge=True, **kwargs):
        self._open = ExitStack()
        OPEN.append(self)
        self.socket = self._open.enter_context(connect(hub.url, compression=None, max_size=None, **kwargs))
        self.acknowledge = acknowledge
        with suppress(ConnectionClosed):  # an address that has to wait is not even heard
            self.send(type="auth", token=hub.tokens.viewer if token is None else token)
        self.data, self.frames, self.others = [], [], []

    def close(self):
        self._open.close()

    def send(self, **message):
        self.socket.send(json.dumps({"v": 1, **message}))

    def next(self, timeout=10.0):
        text = self.socket.recv(timeout=timeout)
        if isinstance(text, bytes):
            (length,) = struct.unpack(">I", text[:4])
            message = json.loads(text[4 : 4 + length]) | {"body": text[4 + length :]}
            self.frames.append(message)
            if self.acknowledge:
                self.send(type="ack", frame=message["seq"])
        else:
            message = json.loads(text)
            (self.data if message["type"] == "data" else self.others).append(message)
            if message["type"] == "data" and self.acknowledge:
                self.send(type="ack", seq=message["seq"])
        return message

    def until(self, kind, condition=lambda message: True, timeout=10.0):
        end_s = time.monotonic() + timeout
        while time.monotonic() < end_s:
            message = self.next(end_s - time.monotonic())
            if message["type"] == kind and condition(message):
                return message
        raise AssertionError(f"no {kind} in time")

    def close_code(self):
        try:
            for _ in iter(lambda: self.socket.recv(timeout=10), None):
                pass
        except ConnectionClosed as closed:
            return closed.rcvd.code


def feed_all(feed, *parts):
    for documents in parts:
        for name, doc in documents:
            feed(name, doc)


def frame_view(n, shape=(64, 80), **more):
    pixels = np.random.default_rng(n).integers(100, 4000, shape, dtype=np.uint16)
    return FrameView(pixels, "0/A/8562.0", 0.03324, facts={"n": n, "verdict": "accepted", "accepted": True}, **more)


# --- who gets in --------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("role", ["viewer", "operator"])
def test_a_token_tells_the_role(hub, role):
    assert Watcher(hub, getattr(hub.tokens, role)).until("welcome")["role"] == role


def test_a_program_may_send_its_token_as_a_header(hub):
    with connect(hub.url, additional_headers={"Authorization": f"Bearer {hub.tokens.viewer}"}) as socket:
        assert json.loads(socket.recv(timeout=10))["role"] == "viewer"


@pytest.mark.parametrize("token", ["", "wrong", "x" * 5000, 7, None])
def test_a_wrong_token_is_refused(hub, token):
    with connect(hub.url) as socket:
        socket.send(json.dumps({"v": 1, "type": "auth", "token": token}))
        with pytest.raises(ConnectionClosed) as closed:
            socket.recv(timeout=10)
        assert closed.value.rcvd.code == 4401


def test_guessing_is_slowed_down(hub):
    codes = [Watcher(hub, "guess").close_code() for _ in range(14)]
    assert codes[0] == 4401
    assert codes[-1] == 4429


@pytest.mark.parametrize(
    "origin", ["https://evil.example", "http://127.0.0.1:1", "null", "http://127.0.0.1.evil.example:{port}"]
)
def test_a_page_of_another_origin_is_refused_before_it_can_say_anything(hub, origin):
    with pytest.raises(InvalidStatus) as refused:
        connect(hub.url, origin=origin.format(port=hub.port))
    assert refused.value.response.status_code == 403


@pytest.mark.parametrize("origin", [GOOD_ORIGIN, "http://localhost:{port}", "https://beamline.example.org"])
def test_our_own_page_and_that_behind_the_proxy_come_in(hub, origin):
    assert Watcher(hub, origin=origin.format(port=hub.port)).until("welcome")


def test_an_unknown_host_name_is_refused(hub):
    """DNS rebinding: a foreign name that points to this machine."""
    answer = httpx.get(hub.http, headers={"Host": "evil.example"}, trust_env=False)
    assert answer.status_code == 421
    assert "<" not in answer.text


def test_tokens_are_private_files(hub):
    for role in ("viewer", "operator"):
        assert (hub.folder / f"{role}.token").stat().st_mode & 0o777 == 0o600
    assert hub.tokens.viewer != hub.tokens.operator


def test_a_token_that_others_can_read_is_not_used(hub):
    (hub.folder / "viewer.token").chmod(0o644)
    with pytest.raises(PermissionError, match="others can read"):
        Tokens.in_folder(hub.folder)


# --- what is served -----------------------------------------------------------------------------------------------------------------


def test_the_page_may_load_nothing_from_elsewhere(hub):
    answer = httpx.get(hub.http, trust_env=False)
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy
    assert "<script>" not in answer.text
    assert " style=" not in answer.text
    assert "//" not in answer.text.replace("<!doctype html>", "")  # no address at all


@pytest.mark.parametrize(
    "path",
    [
        "/static/../hub/app.py",
        "/static/%2e%2e/hub/app.py",
        "/static/..%2f..%2funits.py",
        "/static//etc/passwd",
        "/static/js/../../feed.py",
        "/nothing",
    ],
)
def test_nothing_but_the_page_is_served(hub, path):
    import http.client

    connection = http.client.HTTPConnection("127.0.0.1", hub.port, timeout=10)
    connection.request("GET", path)  # as it is: httpx would tidy the path
    assert connection.getresponse().status == 404
    connection.close()


@pytest.mark.parametrize(
    "path", ["/", "/static/page.css", "/static/js/main.js", "/static/vendor/uPlot.iife.min.js", "/favicon.ico"]
)
def test_every_file_of_the_page_is_there(hub, path):
    assert httpx.get(hub.http + path, trust_env=False).status_code == 200


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("not json", 4400),
        ("[1, 2]", 4400),
        ('{"v": 99, "type": "ack"}', 4400),
        ('{"v": 1, "type": "shout"}', 4400),
        ('{"v": 1, "type": "view", "view": "x-ray"}', 4400),
        ("[" * 10000, 4400),
        ("x" * 20000, 1009),
    ],
)
def test_what_is_not_the_protocol_ends_that_connection_and_no_other(hub, text, code):
    bystander, rude = Watcher(hub), Watcher(hub)
    rude.until("welcome")
    rude.socket.send(text)
    assert rude.close_code() == code
    assert bystander.until("beat")


def test_too_many_messages_end_the_connection(hub):
    rude = Watcher(hub)
    rude.until("welcome")
    with suppress(ConnectionClosed):
        for _ in range(120):
            rude.send(type="ack", seq=0)
    assert rude.close_code() == 4429


# --- data ---------------------------------------------------------------------------------------------------------------------------


def test_a_page_opened_in_the_middle_of_a_run_fills_at_once(hub, feed):
    run = PretendRun()
    feed_all(feed, run.begin(), *(run.frame(dose_gy=9e3 * n) for n in range(1, 41)))
    late = Watcher(hub)
    message = late.until("data", lambda m: "frames" in m["series"])
    assert message["reset"]
    rows = sum(len(m["series"].get("frames", {"rows": []})["rows"]) for m in late.data)
    assert rows == 40
    assert message["state"]["run"]["uid"] == run.uid
    assert message["state"]["experiment"]["beam_fwhm_um"] == [30.0, 30.0]
    feed_all(feed, run.frame())
    more = late.until("data", lambda m: "frames" in m["series"])
    assert not more["reset"]
    assert (more["series"]["frames"]["first"], len(more["series"]["frames"]["rows"])) == (40, 1)


def test_a_frame_comes_as_a_picture_with_its_facts(hub, feed):
    watcher = Watcher(hub)
    watcher.until("welcome")
    until(lambda: feed._hubs)
    feed.frame(frame_view(7))
    frame = watcher.until("frame")
    assert (frame["n"], frame["view"], frame["nx"], frame["ny"], frame["unit"]) == (7, "raw", 80, 64, "counts")
    assert frame["body"][:2] == b"\xff\xd8"


@pytest.mark.parametrize(
    ("view", "unit"), [("aligned", "optical density"), ("difference", "optical density"), ("fft", "log10 power")]
)
def test_other_views_are_made_when_somebody_looks(hub, feed, view, unit):
    watcher = Watcher(hub)
    watcher.send(type="view", view=view)
    until(lambda: feed._hubs and view in next(iter(feed._hubs)).views)
    for n in (1, 2):
        feed.frame(frame_view(n, accepted=True, shift_yx_px=(1.2, -3.0)))
        frame = watcher.until("frame", lambda m, n=n: m["view"] == view and m["n"] == n)
    assert frame["unit"] == unit


def test_who_does_not_acknowledge_gets_one_message_of_each_kind(hub, feed):
    run = PretendRun()
    sleeper = Watcher(hub, acknowledge=False)
    sleeper.until("welcome")
    until(lambda: feed._hubs)
    watcher = Watcher(hub)
    feed_all(feed, run.begin())
    for n in range(12):
        feed_all(feed, run.frame())
        feed.frame(frame_view(n))
        watcher.until("frame", lambda m, n=n: m["n"] == n)
    for _ in range(3):
        sleeper.until("beat")
    assert (len(sleeper.data), len(sleeper.frames)) == (1, 1)
    assert len(watcher.frames) == 12
    sleeper.send(type="ack", frame=sleeper.frames[0]["seq"])
    assert sleeper.until("frame")["n"] == 11  # the newest, none of those between


def test_the_page_is_complete_again_after_the_hub_was_away(folder, feed):
    first = HubThread(folder)
    run = PretendRun()
    feed_all(feed, run.begin(), run.frame())
    Watcher(first.hub).until("data", lambda m: "frames" in m["series"])
    first.stop()
    feed_all(feed, run.frame(), run.frame("blurred"))
    second = HubThread(folder, port=first.hub.port)
    again = Watcher(second.hub)
    again.until("data", lambda m: "frames" in m["series"])
    assert [row[0] for m in again.data for row in m["series"].get("frames", {"rows": []})["rows"]] == [1, 2, 3]
    second.stop()


def test_an_acquisition_that_goes_is_told_and_the_next_is_shown(hub, folder):
    watcher = Watcher(hub)
    run, other = PretendRun("a" * 16), PretendRun("b" * 16)
    with LiveFeed(folder / "run-1.feed") as feed:
        feed_all(feed, run.begin(), run.frame(), run.end())
        watcher.until("data", lambda m: m["state"].get("state") == "ENDED")
    watcher.until("beat", lambda m: not m["connected"])
    with LiveFeed(folder / "run-2.feed") as feed:
        feed_all(feed, other.begin())
        watcher.until("data", lambda m: m["state"].get("run", {}).get("uid") == other.uid)


# --- the run pays nothing -----------------------------------------------------------------------------------------------------------


def test_a_hub_that_does_not_read_holds_up_nobody(feed):
    """A connection that takes nothing: the queue of documents is emptied all the same, and memory stays bounded."""
    import socket

    with socket.socket(socket.AF_UNIX) as stuck:
        stuck.connect(str(feed.path))
        until(lambda: feed._hubs)
        run = PretendRun()
        feed_all(feed, run.begin())
        for n in range(3000):
            feed_all(feed, run.frame())
            if n % 100 == 0:
                feed.frame(frame_view(n, (512, 512)))
        until(lambda: feed.store.series.get("frames") and feed.store.series["frames"].next == 3000)
        (hub,) = feed._hubs
        assert len(hub._images) <= 1
        assert hub.writer.transport.get_write_buffer_size() < 4e6
    assert feed.dropped == 0


def test_a_feed_whose_thread_is_gone_takes_documents_and_forgets_the_rest(folder):
    feed = LiveFeed(folder / "run-9.feed")  # never started
    run = PretendRun()
    for _ in range(12_000):
        feed_all(feed, run.frame())
    assert feed.dropped == 4000
    assert len(feed._waiting) == 20_000


def test_no_socket_is_no_reason_to_stop(tmp_path):
    with LiveFeed(tmp_path / "missing" / "run-1.feed") as feed:
        feed_all(feed, PretendRun().begin())
        feed.frame(frame_view(1))
    assert not feed.path.exists()


def test_documents_that_make_no_sense_are_left_out(hub, feed):
    watcher = Watcher(hub)
    feed("event", {"nonsense": True})
    feed("start", {})
    run = PretendRun()
    feed_all(feed, run.begin(), run.frame())
    assert watcher.until("data", lambda m: "frames" in m["series"])


# --- steering -----------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def run_socket(folder, feed):
    """A run that answers at its control socket as the acquisition does."""
    import socket

    asked = []
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(str(folder / f"run-{os.getpid()}.sock"))
    listening.listen()

    def serve():
        while True:
            try:
                connection, _ = listening.accept()
            except OSError:
                return
            with connection, connection.makefile("rwb") as file:
                request = json.loads(file.readline())
                asked.append(request)
                if request["arguments"].get("text") == "hang up":
                    continue
                file.write(
                    json.dumps(
                        {"v": 1, "id": request["id"], "ok": True, "state": "PAUSING", "message": "as asked"}
                    ).encode()
                    + b"\n"
                )
                file.flush()

    threading.Thread(target=serve, daemon=True).start()
    yield asked
    listening.shutdown(socket.SHUT_RDWR)
    listening.close()


def test_an_operator_steers_and_is_named(hub, feed, run_socket):
    operator = Watcher(hub, hub.tokens.operator)
    operator.until("beat", lambda m: m["connected"])
    operator.send(type="command", id="1", verb="pause", arguments={"now": True}, who="Ada")
    reply = operator.until("reply")
    assert (reply["ok"], reply["state"], reply["id"], reply["verb"]) == (True, "PAUSING", "1", "pause")
    assert [(r["verb"], r["arguments"], r["who"], r["via"]) for r in run_socket] == [
        ("pause", {"now": True}, "Ada", "page")
    ]


def test_a_viewer_does_not_steer(hub, feed, run_socket):
    viewer = Watcher(hub)
    viewer.until("beat", lambda m: m["connected"])
    viewer.send(type="command", id="1", verb="abort", arguments={})
    reply = viewer.until("reply")
    assert not reply["ok"]
    assert "look, not steer" in reply["message"]
    assert not run_socket


@pytest.mark.parametrize(
    ("message", "why"),
    [
        ({"verb": "explode", "arguments": {}}, "unknown"),
        ({"verb": "pause", "arguments": [1]}, "unknown"),
        ({"verb": "note", "arguments": {"text": "hang up"}}, "cannot be reached"),
    ],
)
def test_a_command_that_cannot_be_carried_out_is_answered(hub, feed, run_socket, message, why):
    operator = Watcher(hub, hub.tokens.operator)
    operator.until("beat", lambda m: m["connected"])
    operator.send(type="command", id="7", **message)
    reply = operator.until("reply")
    assert not reply["ok"]
    assert why in reply["message"]


def test_without_a_run_there_is_nothing_to_steer(hub):
    operator = Watcher(hub, hub.tokens.operator)
    operator.until("welcome")
    operator.send(type="command", id="1", verb="pause", arguments={})
    assert "no run" in operator.until("reply")["message"]


def test_commands_are_limited_in_rate(hub, feed, run_socket):
    operator = Watcher(hub, hub.tokens.operator)
    operator.until("beat", lambda m: m["connected"])
    for n in range(12):
        operator.send(type="command", id=str(n), verb="resume", arguments={})
    replies = [operator.until("reply") for _ in range(12)]
    assert 6 <= sum(reply["ok"] for reply in replies) < 12
    assert any("too many" in reply["message"] for reply in replies if not reply["ok"])
