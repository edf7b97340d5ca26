"""A run as text: what stands in the block, how it fits the terminal, and what a pipe and a machine get."""

from __future__ import annotations

import io
import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pretend_run import EXPERIMENT, PretendRun
from rich.console import Console

from xbat_live.live.model import RunModel
from xbat_live.live.store import LiveStore
from xbat_live.live.terminal import RunBlock, duration, event_line, gauge, limit_gy, line, phase, records, status, times

MACHINE = {"shutter": "Open", "ring_ma": 499.83, "energy_ev": 8562.0}


def run_of(frames: int, *, dose_gy: float = 9e3, **shown) -> tuple[LiveStore, PretendRun]:
    """A run with `frames` frames, each fifth blurred, and values that the acquisition shows beside the documents."""
    store, run = LiveStore(), PretendRun()
    store.set(experiment=EXPERIMENT, **shown)
    model = RunModel(store)
    for documents in (
        run.begin(),
        *(run.frame("blurred" if n % 5 == 4 else "accepted", dose_gy=dose_gy) for n in range(frames)),
    ):
        for name, doc in documents:
            model.take(name, doc)
    return store, run


def drawn(store: LiveStore, *, width: int = 80, encoding: str = "utf-8", colour: bool = False, **how) -> str:
    out = io.TextIOWrapper(io.BytesIO(), encoding=encoding, errors="replace")
    console = Console(file=out, width=width, force_terminal=colour, color_system="standard" if colour else None)
    console.print(RunBlock(store, **how))
    out.flush()
    return out.buffer.getvalue().decode(encoding)


def row(text: str, label: str) -> str:
    (found,) = [shown for shown in text.splitlines() if shown.startswith(label)]
    return found.removeprefix(label).strip()


@pytest.mark.parametrize(
    ("label", "told"),
    [
        ("progress", "10 %  point 6/60, spot 1"),
        ("time", "1:00 since the start, 9:00 left"),
        ("dose", "108 kGy of 120 kGy (90 %: near), 12 exposures left here, 190 kGy/s"),
        ("frames", "10 taken, 8 accepted, 2 blurred (20 % rejected)"),
        ("beam", "shutter Open, spot 1 at (-59.9, -60.1) µm, 8562.0 eV, ring 499.8 mA"),
        ("drift", "x +146 nm, y +416 nm, 316 nm/min"),
        ("cell", "Galvanostatic, 3.640 V, 0.0833 mA, 0.1 mAh, SOC 10.0 %"),
    ],
)
def test_what_a_person_wants_to_know_fits_80_columns(label, told):
    store, run = run_of(10, dose_gy=108e3, machine=MACHINE)
    assert row(drawn(store, now_s=run.t0 + 60), label).endswith(told)


def test_the_last_events_are_there_and_the_newest_is_not_cut():
    store, run = run_of(1)
    model = RunModel(store)
    model._streams = {f"{run.uid}-decision": "decision"}
    reasons = [f"frame {n} is blurred: {'so much ' * 15}that it is taken again" for n in range(7)]
    for reason in reasons:
        model.take(*run.decision("retake", reason)[0])
    text = " ".join(drawn(store, now_s=run.t0).split())
    assert reasons[-1] in text
    assert [f"frame {n} " in text for n in range(7)] == [False, False, *[True] * 5]
    assert reasons[-2] not in text  # cut, with an ellipsis


@pytest.mark.parametrize(
    ("documents", "steering", "word"),
    [
        ("RUNNING", "RUNNING", "RUNNING"),
        ("RUNNING", "PAUSING", "PAUSING"),  # what is asked for is told while it changes
        ("RELOCATING", "RUNNING", "RELOCATING"),
        ("ENDED", "STOPPING", "ENDED"),  # over is over
        ("RUNNING", None, "RUNNING"),
        (None, None, "IDLE"),
    ],
)
def test_the_state_in_one_word(documents, steering, word):
    assert phase({"state": documents, "steering": {"phase": steering}}) == word


@pytest.mark.parametrize(
    ("progress", "state", "left_s", "part"),
    [
        ({"total_s": 600, "n_points": 60, "point": 6}, "RUNNING", 500.0, 1 / 6),  # the plan's own time
        ({"total_s": 600, "n_points": 60, "point": 30}, "RUNNING", 500.0, 0.5),  # whatever is further
        ({"n_points": 50, "point": 10}, "RUNNING", 400.0, 0.2),  # by the pace so far
        ({"n_points": 50}, "RUNNING", None, None),  # no point yet: not known
        ({"total_s": 60, "n_points": 60, "point": 60}, "RUNNING", 0.0, 1.0),  # late, never negative
        ({"total_s": 600, "n_points": 60, "point": 6}, "ENDED", 0.0, 1.0),
    ],
)
def test_time_left(progress, state, left_s, part):
    run = {"started": 1000.0, "stopped": 1100.0, "exit_status": "success"}
    elapsed, left, done = times({"run": run, "progress": progress, "state": state}, 1100.0)
    assert (elapsed, left) == (100.0, left_s)
    assert done == (None if part is None else pytest.approx(part))


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0:00"), (59.6, "1:00"), (3661, "1:01:01"), (None, "-"), (math.inf, "-"), (-3, "0:00")]
)
def test_durations(seconds, text):
    assert duration(seconds) == text


# --- the gauge ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dose_gy", "bar"),
    [
        (None, "--------------------|----------"),
        (0.0, "--------------------|----------"),
        (10e3, "###########---------|----------"),  # a tenth of the limit is half of the two decades below it
        (100e3, "####################|----------"),  # the mark stands where the limit is
        (900e3, "####################|##########"),
    ],
)
def test_the_gauge_is_logarithmic_with_the_limit_in_its_place(dose_gy, bar):
    shown, scale = gauge(dose_gy, 100e3, 31, plain=True)
    assert shown.plain == bar
    assert scale.plain == "1 kGy  10 kGy    100 kGy  1 MGy"


DOSES = st.none() | st.floats(0, 1e9, allow_nan=False)


@given(DOSES, st.none() | st.floats(1e-3, 1e9), st.integers(20, 120))
def test_the_gauge_is_as_wide_as_it_is_told_and_grows_with_the_dose(dose_gy, most_gy, width):
    shown, scale = gauge(dose_gy, most_gy, width)
    assert len(shown.plain) == width
    assert len(scale.plain) in (0, width)
    if dose_gy and most_gy and dose_gy > most_gy:  # never shown below the limit
        assert "─" not in shown.plain[: shown.plain.index("┃")]


# --- wherever it is shown -------------------------------------------------------------------------------------------------


PARTS = st.sampled_from(
    ["run", "experiment", "progress", "dose", "counts", "verdicts", "drift", "cell", "beam", "machine", "spots"]
)


@given(st.sets(PARTS), st.integers(40, 200))
def test_nothing_is_wider_than_the_terminal_whatever_is_not_known(missing, width):
    store, run = run_of(7, machine=MACHINE, services=[{"name": "Tiled", "state": "starting"}])
    for name in missing:
        store.state.pop(name, None)
    text = drawn(store, width=width, now_s=run.t0 + 33, hint="Ctrl-C leaves")
    assert max(map(len, text.splitlines())) <= width
    assert text.splitlines()[-1].startswith("Ctrl-C leaves")
    line(store, run.t0)
    json.dumps(status(store, run.t0))


def test_a_terminal_without_unicode_gets_ascii():
    store, run = run_of(3)
    text = drawn(store, now_s=run.t0, encoding="ascii").replace("?", "")
    assert "####" in text
    assert "> start" in text


def test_colour_is_never_alone():
    """Without colour the block says the same; with it there is some."""
    store, run = run_of(3, dose_gy=130e3)
    plain, coloured = drawn(store, now_s=run.t0), drawn(store, now_s=run.t0, colour=True)
    assert "\x1b[" in coloured
    assert "\x1b" not in plain
    assert "108 %: at the limit" in plain


def test_old_data_is_told_until_the_run_is_over():
    store, run = run_of(1)
    assert "no data for 7 s" in drawn(store, now_s=run.t0, age_s=7.0)
    assert "no data" not in drawn(store, now_s=run.t0, age_s=1.0)
    RunModel(store).take(*run.end()[0])
    assert "no data" not in drawn(store, now_s=run.t0, age_s=7.0)


def test_a_changed_limit_is_the_one_that_is_shown():
    store, _ = run_of(1)
    assert limit_gy(store.state) == 120e3
    store.update("experiment", dose_limit_gy=60e3)
    assert limit_gy(store.state) == 60e3
    del store.state["experiment"]
    assert limit_gy(store.state) == 120e3  # of the start document


# --- without a terminal ---------------------------------------------------------------------------------------------------


def test_one_line_says_where_it_stands():
    store, run = run_of(5, dose_gy=60e3)
    assert line(store, run.t0 + 60) == (
        "RUNNING | point 3/60 | spot 1 | dose 60 kGy of 120 kGy (50 %) | 5 taken, 4 accepted, 1 blurred (20 % rejected) | drift "
        "x +4 nm, y +278 nm, 316 nm/min | Galvanostatic, 3.620 V, 0.0833 mA, 0.05 mAh, SOC 5.0 % | 9:00 left"
    )


@pytest.mark.parametrize(
    ("severity", "style"), [("alarm", "bold red"), ("warning", "yellow"), ("info", ""), ("unheard of", "")]
)
def test_an_event_is_a_line(severity, style):
    assert event_line({"severity": severity, "what": "retake", "text": "blurred"}) == ("retake: blurred", style)


def test_records_are_flat_and_complete():
    store, run = run_of(2, machine=MACHINE)
    message, seen = store.delta(None)
    told = list(records(message, store))
    assert [record["type"] for record in told] == ["run", "frame", "frame", "event"]
    assert told[0]["uid"] == run.uid
    assert [(record["n"], record["verdict"]) for record in told[1:3]] == [(1, "accepted"), (2, "accepted")]
    RunModel(store).take(*run.end("fail", "IOC gone")[0])
    message, _ = store.delta(seen)
    (run_again, event) = records(message, store)  # only what is new
    assert run_again["exit_status"] == "fail"
    assert event["text"] == "run ended: fail (IOC gone)"
    assert json.loads(json.dumps(status(store, run.t0)))["state"] == "FAILED"
