"""The control socket: requests and replies, whom it answers, and what is left of dead runs."""

import json
import os
import socket
import stat
import threading
from pathlib import Path

import pytest

from xbat_live.live.control import MAX_LINE, ControlClient, ControlServer, RunNotReachable, find_runs
from xbat_live.live.control_desk import ControlDesk
from xbat_live.live.control_messages import BadRequest, Reply, Request
from xbat_live.plans import Steering


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("XBAT_RUNTIME_DIR", str(tmp_path / "run"))
    return tmp_path / "run"


@pytest.fixture
def steering():
    steering = Steering()
    steering.begin()
    return steering


@pytest.fixture
def server(folder, steering):
    desk = ControlDesk(steering, status=lambda: {"sample": "cell-7", "uid": "0123456789", "dose_gy": float("nan")})
    with ControlServer(desk) as server:
        yield server


def line(**changes):
    return {"v": 1, "id": "a1", "verb": "status", "arguments": {}, "who": "eva", "via": "cli"} | changes


def ask_raw(path, content):
    with socket.socket(socket.AF_UNIX) as raw:
        raw.settimeout(5)
        raw.connect(str(path))
        raw.sendall(content if isinstance(content, bytes) else json.dumps(content).encode() + b"\n")
        return json.loads(raw.makefile("rb").readline())


def test_a_run_is_found_and_steered(server, steering):
    (run,) = find_runs()
    assert run.pid == os.getpid()
    assert run.status["sample"] == "cell-7"
    assert run.status["dose_gy"] is None  # JSON knows no NaN
    assert run.is_called("cell-7")
    assert run.is_called("01234567")
    assert run.is_called(str(os.getpid()))
    assert not run.is_called("012")
    with ControlClient(run.path) as client:
        reply = client.ask("pause", {"now": True}, who="eva")
        assert (reply.ok, reply.state) == (True, "PAUSING")
        reply = client.ask("pause", who="eva")
        assert not reply.ok
        assert "under way already" in reply.message
        assert client.ask("resume", who="eva").state == "RUNNING"
    remarks = []
    while (remark := steering.next_remark()) is not None:
        steering.wrote(remark)
        remarks.append(remark.values)
    commands = [remark for remark in remarks if remark["command"] != "state"]
    assert [(remark["command"], remark["ok"], remark["who"], remark["via"]) for remark in commands] == [
        ("pause", True, "eva", "cli"),
        ("pause", False, "eva", "cli"),
        ("resume", True, "eva", "cli"),
    ]


def test_nobody_else_comes_in(server, folder):
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE(server.path.stat().st_mode) == 0o600


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"{nonsense\n", "not a line of JSON"),
        (b"[1]\n", "JSON object"),
        (line(v=2), "version 2"),
        (line(verb="explode"), "known: status, pause"),
        (line(verb=["pause"]), "is not known"),
        (line(verb="pause", arguments=[]), "arguments is not"),
        (line(verb="pause", arguments={"now": "perhaps"}), "now: Input should be a valid boolean"),
        (line(verb="pause", arguments={"later": True}), "later: Extra inputs"),
        (line(verb="propose", arguments={"x_um": 1.0}), "y_um: Field required"),
        (line(verb="propose", arguments={"x_um": 1.0, "y_um": float("inf")}), "finite"),
        (line(verb="note", arguments={"text": ""}), "at least 1 character"),
        (line(via="post"), "via 'post'"),
        (b"x" * (MAX_LINE + 10) + b"\n", "at most"),
    ],
)
def test_a_request_that_makes_no_sense_is_answered_with_the_reason(server, content, why):
    reply = ask_raw(server.path, content)
    assert reply["ok"] is False
    assert why in reply["message"]


def test_a_desk_that_fails_is_an_answer_and_the_server_goes_on(folder):
    def fails(request: Request) -> Reply:
        raise RuntimeError("disk on fire")

    with ControlServer(fails) as server, ControlClient(server.path) as client:
        for _ in range(2):
            reply = client.ask("status")
            assert not reply.ok
            assert "failed inside" in reply.message


def test_several_operators_at_once(server):
    replies = []

    def one(number):
        with ControlClient(server.path) as client:
            replies.extend(client.ask("note", {"text": f"from {number}"}, who=f"operator {number}") for _ in range(20))

    threads = [threading.Thread(target=one, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(replies) == 160
    assert all(reply.ok for reply in replies)


def test_sockets_of_dead_runs_are_removed_and_those_of_hung_ones_are_left(folder):
    folder.mkdir(mode=0o700)
    dead, hung = folder / "run-4194304.sock", folder / f"run-{os.getppid()}.sock"  # beyond pid_max; a living process
    for path in (dead, hung):
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(path))
    (folder / "run-nonsense.sock").touch()
    assert find_runs() == []
    assert not dead.exists()
    assert hung.exists()


def test_a_long_folder_is_no_obstacle(tmp_path, steering):
    folder = Path(tmp_path, *["a-folder-with-quite-a-long-name"] * 5)
    folder.mkdir(parents=True)
    with ControlServer(ControlDesk(steering), folder=folder) as server:
        assert len(str(server.path)) > 108
        (run,) = find_runs(folder)
        assert run.status["state"] == "RUNNING"


def test_a_run_that_has_ended_says_so(folder, steering):
    with ControlServer(ControlDesk(steering)) as server:
        path = server.path
    assert find_runs() == []
    with pytest.raises(RunNotReachable, match="does not answer"):
        ControlClient(path)


def test_who_is_printable_and_short():
    request = Request.read(json.dumps(line(who="ev\x1b[31ma\n" + "x" * 500)).encode())
    assert request.who.startswith("ev[31ma")
    assert len(request.who) == 64
    with pytest.raises(BadRequest) as error:
        Request.read(json.dumps(line(verb="?")).encode())
    assert error.value.id == "a1"
