"""The live page in a real browser against the real demonstration: one run, one browser, looked at and steered while it goes on."""

from __future__ import annotations

import contextlib
import http.server
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
from browser import Page, browser, chromium
from live_fixtures import HubThread
from pretend_run import PretendRun
from pretend_sweeps import cube, maps_of
from xbat_process import xbat

from xbat_live.live.control import ControlServer
from xbat_live.live.control_desk import ControlDesk
from xbat_live.live.feed import LiveFeed
from xbat_live.plans import Steering
from xbat_live.watchdog.config_file import read_config

pytestmark = [pytest.mark.system, pytest.mark.timeout(240)]

SECONDS = 80
"""As long as it may take; the last command aborts the run."""


@dataclass
class LiveDemo:
    url: str
    runtime: Path
    folder: Path
    url_after_s: float

    @property
    def address(self) -> str:
        return self.url.partition("#")[0]

    def token(self, role: str) -> str:
        return (self.runtime / f"{role}.token").read_text().strip()

    def shutter(self) -> str:
        """What the shutter's IOC says."""
        (file,) = self.folder.glob("*/ledger/*.guard.json")
        section = read_config(file).beamline
        environment = os.environ | section.channel_access.environment()
        code = "import sys; from caproto.sync.client import read; print(read(sys.argv[1], data_type='native', timeout=5).data[0])"
        pv = f"{section.prefix}SH:Status"
        found = subprocess.run(
            [sys.executable, "-c", code, pv], env=environment, capture_output=True, text=True, check=True
        )
        return {"0": "Closed", "1": "Open"}.get(found.stdout.strip(), found.stdout.strip())

    def hub_pid(self) -> int | None:
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                with contextlib.suppress(OSError):
                    words = (entry / "cmdline").read_bytes().split(b"\0")
                    if b"xbat_live.live.hub" in words and os.fsencode(self.runtime) in words:
                        return int(entry.name)
        return None


@pytest.fixture(scope="module")
def new_page():
    with browser() as opener:
        yield opener


@pytest.fixture(scope="module")
def demo(new_page, tmp_path_factory):
    """A demonstration under way; the browser is there before it, so that nothing of the run is spent waiting for it."""
    runtime = tmp_path_factory.mktemp("rt")
    folder = tmp_path_factory.mktemp("demo")
    started_s = time.monotonic()
    process = xbat(
        "demo",
        "--seconds",
        str(SECONDS),
        "--port",
        "0",
        "--directory",
        str(folder),
        env={"XBAT_RUNTIME_DIR": str(runtime)},
    )
    lines: list[str] = []
    url = ""
    for line in process.stdout:
        lines.append(line)
        if found := re.search(r"(http://127\.0\.0\.1:\d+/#k=\S+)", line):
            url = found[1]
            break
    assert url, lines
    after_s = time.monotonic() - started_s
    reader = threading.Thread(target=lambda: [lines.append(line) for line in process.stdout], daemon=True)
    reader.start()
    yield LiveDemo(url, runtime, folder, after_s)
    process.send_signal(signal.SIGINT)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(5)  # nobody waits here for the archive to be drained; all its processes end with it
    process.kill()
    process.wait()
    reader.join(5)
    process.stdout.close()
    process.stderr.close()


@pytest.fixture(scope="module")
def page(demo, new_page) -> Page:
    return new_page().open(demo.url)


def test_the_page_is_there_before_the_services_are(demo, page):
    page.until(lambda: page.stats("connected"))
    page.until(lambda: "IOCs" in page.text("services"))
    assert page.stats("role") == "operator"
    assert "#" not in page.page.url  # the token is not left in the address bar


def test_the_dose_is_shown_as_the_run_counts_it(demo, page):
    page.until(lambda: page.stats("points") >= 2, 90)
    assert re.fullmatch(r"\d+(\.\d+)? kGy", page.text("dose"))
    assert page.text("dose-limit") == "120 kGy"
    assert page.text("state").split() == ["▶", "RUNNING"]
    assert "operando_txm_series" in page.text("plan")
    shown = page.page.evaluate(
        "[...document.querySelectorAll('[data-testid=literature-tick]')].map((mark) => mark.dataset.source)"
    )
    assert any("Jousseaume 2023" in source for source in shown)
    kgy = float(page.text("dose").split()[0])
    assert 0 < kgy <= 120


def test_frames_are_painted_with_their_verdict(demo, page):
    page.until(lambda: page.stats("frames") >= 3)
    bright = page.page.evaluate(
        "(() => { const c = document.querySelector('[data-testid=frame]');"
        " const d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data;"
        " return new Set(d.filter((_, i) => i % 4 === 0)).size; })()"
    )
    assert bright > 100  # grey levels: a picture, not an empty canvas
    assert "33.2 nm/px" in page.text("frame-note")


def test_a_rejected_frame_has_another_border_and_word(demo, page):
    page.until(lambda: page.attribute("frame-box", "data-verdict") == "rejected", 60)
    styles = page.page.evaluate(
        "['rejected', 'accepted'].map((verdict) => { const box = document.querySelector('[data-testid=frame-box]').cloneNode();"
        " box.dataset.verdict = verdict; document.body.append(box); const s = getComputedStyle(box);"
        " const both = [s.borderTopStyle, s.borderTopColor]; box.remove(); return both; })"
    )
    assert styles[0][0] != styles[1][0]  # never by colour alone
    assert styles[0][1] != styles[1][1]
    page.until(lambda: page.page.locator('[data-testid=event][data-what="retake"]').count())


@pytest.mark.parametrize(
    ("view", "unit"), [("difference", "optical density"), ("fft", "log10 power"), ("raw", "counts")]
)
def test_other_views_of_the_frame(demo, page, view, unit):
    page.page.click(f"[data-view={view}]")
    page.until(lambda: unit in page.text("frame-note"), 30)
    assert page.stats("lastFrame.view") == view


def test_a_relocation_is_an_arrow_on_the_map(demo, page):
    page.until(lambda: page.count("relocation-arrow") >= 1, 90)
    assert page.count("spot") >= 2
    assert page.page.locator('[data-testid=event][data-what="relocate"]').count() >= 1


def test_reload_in_the_middle_restores_everything(demo, page):
    before = page.stats("points")
    arrows = page.count("relocation-arrow")
    page.page.reload()
    page.until(lambda: page.stats("points") >= before, 15)
    page.until(lambda: page.count("relocation-arrow") >= arrows, 15)
    assert page.stats("role") == "operator"


def test_a_hub_that_is_killed_comes_back_complete(demo, page):
    before, pid = page.stats("points"), page.until(demo.hub_pid)
    os.kill(pid, signal.SIGKILL)
    page.until(lambda: not page.stats("connected"))
    page.until(lambda: page.stats("connected"), 30)
    assert demo.hub_pid() != pid
    page.until(lambda: page.stats("points") > before, 30)
    numbers = page.page.evaluate("window.S.store.frames().column('n')")
    assert numbers == list(range(1, len(numbers) + 1))


def test_a_pause_from_the_page_closes_the_shutter_of_the_beamline(demo, page):
    """Down to the IOC and back: the button, the plan, the shutter's own PV; seen by all, and undone."""
    page.until(lambda: page.page.get_by_test_id("pause").is_enabled(), 30)
    page.page.get_by_test_id("pause").click()
    page.until(lambda: "PAUSED" in page.text("state"), 30)
    frames = page.stats("points")
    assert demo.shutter() == "Closed"
    page.page.wait_for_timeout(1500)
    assert page.stats("points") == frames
    assert demo.shutter() == "Closed"
    assert not page.page.get_by_test_id("pause").is_enabled()
    page.page.keyboard.press("p")
    page.until(lambda: "RUNNING" in page.text("state"), 30)
    page.until(lambda: page.stats("points") > frames, 30)


def test_a_note_from_the_page_and_one_from_a_second_terminal(demo, page, monkeypatch):
    from xbat_live.live.control import ControlClient, find_runs

    page.page.get_by_test_id("note").click()
    page.page.get_by_test_id("note-text").fill("electrolyte looks turbid")
    page.page.get_by_test_id("who").fill("Ada")
    page.page.get_by_test_id("ask-ok").click()
    page.until(lambda: "✓ note" in page.text("reply"))
    (run,) = find_runs(demo.runtime)
    with ControlClient(run.path) as terminal:
        assert terminal.ask("note", {"text": "shift change"}, who="Grace", via="cli").ok
    notes = page.page.locator('[data-testid=event][data-severity="operator"][data-what="note"]')
    page.until(lambda: notes.count() >= 2)
    told = " ".join(notes.all_inner_texts())
    assert "electrolyte looks turbid (Ada via page)" in told
    assert "shift change (Grace via cli)" in told
    pauses = page.page.locator('[data-testid=event][data-severity="operator"][data-what="pause"]')
    assert pauses.count() == 1  # every command is in the run's stream `operator`, from which these lines are made


def test_abort_is_asked_twice_and_can_be_called_off(demo, page):
    page.page.keyboard.press("a")
    page.until(lambda: page.page.get_by_test_id("ask").is_visible())
    page.page.get_by_test_id("ask-cancel").click()
    assert "RUNNING" in page.text("state") or "RELOCATING" in page.text("state")


def test_a_click_on_the_map_tells_distance_and_dose_and_the_beam_goes_there(demo, page):
    """Down to the plan and back: the place that was clicked is the next spot."""
    there = page.page.evaluate("(() => { const view = S.map.frame(); return [view.x(45), view.y(60)]; })()")
    page.page.locator("#map").click(position={"x": there[0], "y": there[1]})
    page.until(lambda: page.page.get_by_test_id("ask").is_visible())
    told = page.text("ask")
    asked = re.search(r"\((4\d\.\d), ([56]\d\.\d)\) µm: (\d+\.\d) µm away, 0 Gy there now, [\d.]+ kGy after", told)
    assert asked, told
    spots = page.count("spot")
    page.page.get_by_test_id("who").fill("Ada")
    page.page.get_by_test_id("who").press("Enter")
    page.until(lambda: "✓ relocate" in page.text("reply"))
    page.until(lambda: page.count("spot") > spots)
    moves = page.page.locator('[data-testid=event][data-what="relocate"]').all_inner_texts()
    assert any("Ada wants it" in text for text in moves)
    assert any("(Ada via page)" in text for text in moves)
    targets = page.stats("store.state.spots.at(-1).fields")
    assert any(abs(x - float(asked[1])) < 0.2 and abs(y - float(asked[2])) < 0.2 for x, y in targets), (targets, told)


def change_limit(page, value, *, reason=""):
    page.page.get_by_test_id("limit").click()
    page.page.get_by_test_id("limit-value").fill(value)
    page.page.get_by_test_id("limit-reason").fill(reason)
    page.page.get_by_test_id("limit-confirm").set_checked(bool(reason))
    page.page.get_by_test_id("ask-ok").click()


def test_a_limit_is_tightened_at_once_and_loosened_for_a_reason_only(demo, page):
    change_limit(page, "100 kGy")
    page.until(lambda: "tightened from 120 kGy to 100 kGy" in page.text("reply"))
    page.until(lambda: page.text("dose-limit") == "100 kGy")
    change_limit(page, "115 kGy")
    page.until(lambda: "confirm it and give a reason" in page.text("reply"))
    assert page.text("dose-limit") == "100 kGy"
    change_limit(page, "115 kGy", reason="agreed with the PI")
    page.until(lambda: page.text("dose-limit") == "115 kGy")


def test_the_command_line_steers_while_the_page_is_open(demo, page):
    done = subprocess.run(
        [sys.executable, "-m", "xbat_live.cli.main", "limit", "110kGy", "--who", "Grace"],
        env=os.environ | {"XBAT_RUNTIME_DIR": str(demo.runtime)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "tightened from 115 kGy to 110 kGy by Grace (cli)" in done.stdout
    page.until(lambda: page.text("dose-limit") == "110 kGy")


def test_a_viewer_sees_no_buttons_and_cannot_steer(demo, new_page):
    viewer = new_page().open(f"{demo.address}#k={demo.token('viewer')}")
    viewer.until(lambda: viewer.stats("connected"))
    assert viewer.stats("role") == "viewer"
    assert not viewer.page.get_by_test_id("controls").is_visible()
    viewer.page.keyboard.press("p")
    answer = viewer.page.evaluate("window.S.command('pause', { now: true })")
    assert not answer["ok"]
    assert "look, not steer" in answer["message"]
    assert not viewer.console


def test_a_wrong_token_is_asked_for_again(demo, new_page):
    stranger = new_page().open(f"{demo.address}#k=guessed")
    stranger.until(lambda: stranger.page.get_by_test_id("login").is_visible())
    assert stranger.stats("points") == 0
    stranger.page.get_by_test_id("token").fill(demo.token("viewer"))
    stranger.page.get_by_test_id("login-ok").click()
    stranger.until(lambda: stranger.stats("points") > 0)


def test_a_page_of_another_origin_gets_nothing(demo, new_page):
    class Foreign(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()

        def log_message(self, *args):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Foreign) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        foreign = new_page().open(f"http://127.0.0.1:{server.server_address[1]}/")
        socket = json.dumps(demo.address.replace("http", "ws") + "live")
        outcome = foreign.page.evaluate(
            f"new Promise((done) => {{ const s = new WebSocket({socket});"
            " s.onopen = () => done('open'); s.onerror = () => done('refused'); })"
        )
        server.shutdown()
    assert outcome == "refused"


def test_a_phone_shows_what_tells_whether_the_sample_is_alive(demo, new_page):
    phone = new_page(viewport={"width": 390, "height": 844}, color_scheme="light").open(demo.url)
    phone.until(lambda: phone.stats("points") > 0)
    for shown in ("state", "dose", "rejected", "progress"):
        assert phone.page.get_by_test_id(shown).is_visible(), shown
    for hidden in ("frame", "map", "traces", "events"):
        assert not phone.page.get_by_test_id(hidden).is_visible(), hidden
    assert phone.page.evaluate("document.documentElement.scrollWidth") <= 390
    assert phone.page.evaluate("document.documentElement.dataset.theme") == "light"
    assert not phone.console


def test_an_abort_from_the_page_ends_the_run_and_every_command_is_in_it(demo, page):
    page.page.keyboard.press("a")
    page.page.get_by_test_id("end-reason").fill("seen enough")
    page.page.get_by_test_id("ask-ok").click()
    page.until(lambda: "ABORTED" in page.text("state"))
    assert demo.shutter() == "Closed"
    told = page.stats(
        "store.log.filter((row) => row.severity === 'operator').map((row) => [row.what, row.text, row.doc])"
    )
    assert all(document for *_, document in told)  # each is an Event of the run's stream `operator`
    assert [(what, "refused" in text, text.partition(" via ")[2].rstrip(")")) for what, text, _ in told] == [
        ("pause", False, "page"),
        ("resume", False, "page"),
        ("note", False, "page"),
        ("note", False, "cli"),
        ("relocate", False, "page"),
        ("limit", False, "page"),
        ("limit", True, "page"),
        ("limit", False, "page"),
        ("limit", False, "cli"),
        ("abort", False, "page"),
    ]
    assert "seen enough" in told[-1][1]


def test_nothing_went_wrong_and_nothing_left_this_machine(demo, page):
    assert page.stats("errors") == []
    assert page.console == []
    assert page.outside == []


def test_energy_sweeps_have_a_panel_of_their_own(new_page, tmp_path):
    """From the documents of the stream `xas` and the maps beside the frames to curves, threshold and pictures."""
    folder = tmp_path / "rt"
    folder.mkdir(mode=0o700)
    hub = HubThread(folder)
    with LiveFeed(folder / "run-1.feed") as feed:
        page = new_page().open(f"{hub.hub.http}/#k={hub.hub.tokens.viewer}")
        page.until(lambda: page.stats("connected"))
        assert not page.page.get_by_test_id("xanes").is_visible()
        shower, products = maps_of(tmp_path, PretendRun(), feed, cube(1), cube(2), cube(3, threshold_gy=21e6))
        page.until(lambda: page.page.get_by_test_id("xanes").is_visible())
        page.until(lambda: page.count("xas-map") == 3)
        page.until(lambda: "cube 3 at C" in page.page.locator("#xanes-edge").inner_text())
        told = page.page.locator("#xanes-edge").inner_text()
        assert "cube 3 at C: threshold 21.0 MGy (95 %: 16.8 MGy to 27.3 MGy) ▲ pixels of high dose stay behind" in told
        for chart in ("#xanes-spectrum", "#xanes-trend"):
            assert page.page.locator(f"{chart} .threshold-line").count() == 1
            assert page.page.locator(f"{chart} .threshold-span").count() == 1
        assert page.page.locator("#xanes-trend circle").count() == 6  # low and high dose of three cubes
        captions = " ".join(page.page.locator("#xas-maps figcaption").all_inner_texts())
        assert "component 1 0 to 1.0" in captions
        assert "edge 8347.0 to 8348.0 eV" in captions
        assert page.console == []
        assert page.stats("errors") == []
        shower.close()
        products.close()
    hub.stop()


def test_a_stop_from_the_page_reaches_a_run_whose_sockets_have_a_long_name(new_page, tmp_path):
    """A plan that is told to stop ends after its frame: test_steering.py. Here the way from the button to what the plan asks."""
    folder = Path(tmp_path, *["a-folder-with-quite-a-long-name"] * 4)
    folder.mkdir(mode=0o700, parents=True)
    hub, steering, run = HubThread(folder), Steering(), PretendRun(t0=time.time())
    steering.begin()
    with (
        ControlServer(ControlDesk(steering), folder=folder) as server,
        LiveFeed(server.path.with_suffix(".feed")) as feed,
    ):
        assert len(str(feed.path)) > 108  # the longest that a socket's address holds
        for document in (*run.begin(), *run.frame()):
            feed(*document)
        page = new_page().open(f"{hub.hub.http}/#k={hub.hub.tokens.operator}")
        page.until(lambda: "RUNNING" in page.text("state"))
        page.page.get_by_test_id("stop").click()
        page.page.get_by_test_id("end-reason").fill("enough for today")
        page.page.get_by_test_id("ask-ok").click()
        page.until(lambda: "✓ stop" in page.text("reply"))
        assert steering.ended_by == "stop"
        assert steering.must_end
        remarks = []  # they become Events of the run's stream `operator`
        while (remark := steering.next_remark()) is not None:
            remarks.append(remark.values)
            steering.wrote(remark)
        (stop,) = (values for values in remarks if values["command"] == "stop")
        assert (stop["via"], stop["ok"]) == ("page", 1)
        assert "enough for today" in str(stop)
        assert page.console == []
    hub.stop()


def test_without_a_browser_these_tests_skip(monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(pytest.skip.Exception, match="no browser"):
        chromium()
