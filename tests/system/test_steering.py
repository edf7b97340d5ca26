"""A run steered from a second terminal: what reaches the shutter, the plan, the ledger and the documents."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from faults_support import experiment, wait_until

from xbat_live.dose import Ledger

pytestmark = [pytest.mark.system, pytest.mark.timeout(180)]


@pytest.fixture(scope="module")
def story(tmp_path_factory):
    """One run, steered through all verbs; what every command answered, and what was found meanwhile."""
    folder = tmp_path_factory.mktemp("steering")
    environment = {"XBAT_RUNTIME_DIR": str(folder / "runtime"), "PYTHONDONTWRITEBYTECODE": ""}
    told: dict[str, subprocess.CompletedProcess[str]] = {}
    seen: dict[str, str] = {}

    def xbat(name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "xbat_live.cli.main", *arguments]
        told[name] = subprocess.run(
            command, env=os.environ | environment, capture_output=True, text=True, timeout=60, check=False
        )
        return told[name]

    def status() -> dict[str, object]:
        answer = xbat("status", "status", "--json")
        return json.loads(answer.stdout) if answer.returncode == 0 else {}

    with experiment(folder, vibration_probability=0.0) as bench:
        bench.write(exposure="300 ms", n_points=500, limit="100 MGy", archive=True)
        xbat("nobody there", "pause")
        process = bench.start(env=environment)
        try:
            wait_until(lambda: int(status().get("frames") or 0) >= 2, 90)
            xbat("pause now", "pause", "--now", "--who", "eva")
            seen["shutter after pause now"] = bench.pv("SH:Status")
            wait_until(lambda: status().get("state") == "PAUSED", 30)
            xbat("note", "note", "in the pause", "--who", "eva")
            xbat("again", "pause")
            seen["openings"] = bench.pv("SH:OpenCount_RBV")
            xbat("place", "relocate", "--dry", "--json", "--", "-40", "-40")
            xbat("beside", "relocate", "--", "5000", "0")
            seen["openings in the pause"] = bench.pv("SH:OpenCount_RBV")
            xbat("resume", "resume")
            xbat("relocate", "relocate", "--who", "adam", "--", "-40", "-40")
            wait_until(lambda: int(status().get("spot") or 0) >= 1, 60)
            xbat("tighten", "limit", "50MGy")
            xbat("loosen", "limit", "80 MGy")
            xbat("loosen well", "limit", "80 MGy", "--confirm", "--reason", "agreed with the PI")
            seen["limits"] = json.dumps(status()["limits"])
            xbat("stop", "stop", "--reason", "enough")
            output, errors = process.communicate(timeout=90)
        finally:
            process.kill()
        seen["shutter"] = bench.pv("SH:Status")
    result = json.loads(output.splitlines()[-1])
    documents = [json.loads(line) for line in documents_of(folder, result["uid"])]
    return told, seen, process.returncode, result, documents, folder, errors


def documents_of(folder, uid):
    """The run's documents as JSON lines, from its archive."""
    code = (
        "import json, sys\n"
        "from xbat_live.archive import TiledServer\n"
        "from tiled.client import from_uri\n"
        "with TiledServer(sys.argv[1], readable_storage=[sys.argv[2]]) as server:\n"
        "    server.wait_ready(timeout_s=90)\n"
        "    client = from_uri(server.uri, api_key=server.api_key)\n"
        "    for name, doc in client[sys.argv[3]].documents():\n"
        "        if name in ('descriptor', 'event', 'start', 'stop'):\n"
        "            print(json.dumps([name, doc], default=str))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(folder / "archive"), str(folder / "frames"), uid],
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [line for line in done.stdout.splitlines() if line.startswith("[")]


def events(documents, stream):
    names = {doc["uid"]: doc["name"] for name, doc in documents if name == "descriptor"}
    return [doc["data"] for name, doc in documents if name == "event" and names[doc["descriptor"]] == stream]


@pytest.mark.parametrize(
    ("command", "code", "words"),
    [
        ("nobody there", 3, "no run of this user"),
        ("pause now", 0, "shutter told to close"),
        ("note", 0, "in the pause"),
        ("again", 1, "paused already"),
        ("place", 0, '"allowed": true'),
        ("beside", 1, "beside the sample"),
        ("resume", 0, "goes on"),
        ("relocate", 0, "the stage moves before the next exposure"),
        ("tighten", 0, "tightened from 100 MGy to 50 MGy"),
        ("loosen", 1, "confirm it and give a reason"),
        ("loosen well", 0, "loosened from 50 MGy to 80 MGy"),
        ("stop", 0, "ends in order"),
    ],
)
def test_each_command_is_answered(story, command, code, words):
    answer = story[0][command]
    assert answer.returncode == code, answer.stderr
    assert words in answer.stdout + answer.stderr


def test_pause_now_closes_the_shutter_and_nothing_is_exposed_in_the_pause(story):
    seen = story[1]
    assert seen["shutter after pause now"] == "Closed"
    assert seen["openings"] == seen["openings in the pause"]
    assert seen["shutter"] == "Closed"


def test_the_run_ends_in_order_by_the_stop(story):
    _, _, code, result, _, _, errors = story
    assert code == 130, errors
    assert result["exit_status"] == "success"
    assert result["decisions"][-1]["action"] == "end"
    assert "stopped by the operator" in result["decisions"][-1]["reason"]


def test_every_command_is_in_the_stream_operator_with_who_gave_it(story):
    commands = [data for data in events(story[4], "operator") if data["operator_command"] != "state"]
    assert [(data["operator_command"], data["operator_ok"]) for data in commands] == [
        ("pause", 1),
        ("note", 1),
        ("pause", 0),
        ("relocate", 0),
        ("resume", 1),
        ("relocate", 1),
        ("limit", 1),
        ("limit", 0),
        ("limit", 1),
        ("stop", 1),
    ]
    assert commands[0]["operator_who"] == "eva"
    assert commands[5]["operator_who"] == "adam"
    assert {data["operator_via"] for data in commands} == {"cli"}
    states = [data["operator_state"] for data in events(story[4], "operator") if data["operator_command"] == "state"]
    assert states[:3] == ["PAUSING", "PAUSED", "RUNNING"]
    assert "RELOCATING" in states
    assert states[-1] == "STOPPING"


def test_the_series_goes_on_at_the_place_that_was_asked_for(story):
    moved = [data for data in events(story[4], "primary") if data["point_spot"] == 1]
    assert moved
    assert {(data["point_target_x_um"], data["point_target_y_um"]) for data in moved} <= {
        (-40.0, -40.0),
        (-10.0, -40.0),
    }
    (decision,) = [data for data in events(story[4], "decision") if data["decision_action"] == "relocate"]
    assert "adam wants it" in decision["decision_reason"]


def test_the_interrupted_exposure_is_counted_and_the_limits_are_in_the_ledger(story):
    _, seen, _, _, _, folder, _ = story
    with Ledger.for_sample(folder / "ledger", "fault-cell", read_only=True) as ledger:
        records = [record.entry for record in ledger.records()]
    reserved = sum(entry.kind == "reserve" for entry in records)
    assert reserved == sum(entry.kind in ("settle", "void") for entry in records)
    notes = " | ".join(entry.note for entry in records if entry.kind == "note")
    assert "tightened from 100 MGy to 50 MGy" in notes
    assert "loosened from 50 MGy to 80 MGy" in notes
    assert "agreed with the PI" in notes
    assert "eva: in the pause" in notes
    (own,) = [limit for limit in json.loads(seen["limits"]) if limit["name"] == "dose limit"]
    assert own["value"] == pytest.approx(80e6)
