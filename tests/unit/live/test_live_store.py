"""What is shown of a run: documents in, bounded state out, and only what is new to whoever has seen the rest."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pretend_run import PretendRun

from xbat_live.live.model import RunModel
from xbat_live.live.store import LiveStore


def watched(*parts, store=None) -> LiveStore:
    store = store or LiveStore()
    model = RunModel(store)
    for documents in parts:
        for name, doc in documents:
            model.take(name, doc)
    return store


def frames(store: LiveStore) -> list[dict]:
    return [dict(zip(store.columns["frames"], row, strict=True)) for row in store.series["frames"].rows]


# --- from documents -----------------------------------------------------------------------------------------------------------------


def test_a_frame_is_shown_with_its_verdict_and_place():
    run = PretendRun()
    store = watched(run.begin(), run.frame(), run.frame("blurred", dose_gy=18e3))
    assert [(row["n"], row["verdict"], row["dose_gy"]) for row in frames(store)] == [
        (1, "accepted", 9e3),
        (2, "blurred", 18e3),
    ]
    assert store.state["state"] == "RUNNING"
    assert store.state["counts"]["rejected"] == 1
    assert store.state["dose"]["exposures_left"] == 12
    assert store.state["spots"][0]["fields"] == [[-60.0, -60.0]]
    assert store.state["quality"]["in_a_row"] == 1


def test_a_relocation_is_a_state_until_the_next_frame_and_an_arrow_for_ever():
    run = PretendRun()
    store = watched(run.begin(), run.frame(), run.decision("relocate", "limit reached", to_x_um=-23.0, to_y_um=-60.0))
    assert store.state["state"] == "RELOCATING"
    watched_on = RunModel(store)
    watched_on._streams = {f"{run.uid}-{name}": name for name in ("primary", "analysis")}
    for name, doc in run.frame(spot=1):
        watched_on.take(name, doc)
    assert store.state["state"] == "RUNNING"
    assert store.state["moves"][0]["to"] == [-23.0, -60.0]


@pytest.mark.parametrize(
    ("status", "before", "state"),
    [
        ("success", [], "ENDED"),
        ("success", [("halt", "limit reached, policy halt")], "HALTED-DOSE"),
        ("abort", [], "ABORTED"),
        ("fail", [], "FAILED"),
    ],
)
def test_how_a_run_ended(status, before, state):
    run = PretendRun()
    decisions = [document for action, reason in before for document in run.decision(action, reason)]
    assert watched(run.begin(), run.frame(), decisions, run.end(status)).state["state"] == state


def test_frames_that_nobody_judges_are_shown_as_well():
    run = PretendRun()
    primary_only = [document for _ in range(3) for document in run.frame()[:1]]
    store = watched(run.begin(), primary_only, run.end())
    assert [(row["n"], row["verdict"]) for row in frames(store)] == [(1, None), (2, None), (3, None)]


def test_a_run_of_anybody_is_shown():
    """No keys of ours at all: a plan of bluesky's own."""
    store = watched(
        [
            ("start", {"uid": "u", "time": 1.0, "plan_name": "count"}),
            ("descriptor", {"uid": "d", "name": "primary", "run_start": "u"}),
            ("event", {"uid": "e", "descriptor": "d", "time": 2.0, "data": {"det": 3}, "seq_num": 1}),
            ("event", {"uid": "f", "descriptor": "unknown", "time": 2.0, "data": {}, "seq_num": 1}),
            ("stop", {"uid": "s", "run_start": "u", "time": 3.0, "exit_status": "success"}),
        ]
    )
    assert store.state["state"] == "ENDED"
    assert frames(store)[0]["dose_gy"] is None


def test_what_an_operator_did_is_an_event_with_who_and_how():
    run = PretendRun()
    store = watched(run.begin(), run.operator("pause", "after the frame under way"))
    row = store.log.rows[-1]
    assert (row["severity"], row["what"]) == ("operator", "pause")
    assert row["text"] == "after the frame under way (eve via page)"


@pytest.mark.parametrize(
    ("command", "more", "severity", "text"),
    [
        ("abort", {"arguments": '{"reason": "leak"}'}, "operator", "shutter told to close: leak (eve via page)"),
        ("limit", {"arguments": '{"reason": "agreed"}', "ok": 0}, "operator", "refused: shutter told to close: agreed (eve via page)"),
        ("pause", {"arguments": "{}"}, "operator", "shutter told to close (eve via page)"),
        ("state", {"state": "PAUSING", "arguments": "{}"}, "info", "PAUSING"),  # nobody's command
    ],
)  # fmt: skip
def test_an_event_of_the_operator_tells_the_reason_given(command, more, severity, text):
    run = PretendRun()
    store = watched(run.begin(), run.operator(command, "shutter told to close", **more))
    assert [store.log.rows[-1][name] for name in ("severity", "what", "text")] == [severity, command, text]


def test_the_next_run_starts_empty_but_knows_the_beamline():
    first, second = PretendRun("first" * 4), PretendRun("other" * 4)
    store = LiveStore()
    store.set(experiment={"sample": "x"})
    watched(first.begin(), first.frame(), first.end(), second.begin(), store=store)
    assert store.state["run"]["uid"] == second.uid
    assert store.state["experiment"] == {"sample": "x"}
    assert "frames" not in store.series
    assert "dose" not in store.state


# --- deltas -------------------------------------------------------------------------------------------------------------------------


def test_not_a_number_is_none_on_the_wire():
    store = LiveStore()
    store.set(a=math.nan, b={"c": [math.inf, 1.0]})
    assert store.state == {"a": None, "b": {"c": [None, 1.0]}}


def test_nothing_new_is_nothing():
    store = LiveStore()
    store.set(a=1)
    _, seen = store.delta(None)
    store.set(a=1)
    assert store.delta(seen)[0] is None


steps = st.lists(
    st.one_of(
        st.tuples(st.just("set"), st.sampled_from("abc"), st.integers(0, 3)),
        st.tuples(st.just("row"), st.sampled_from("xy"), st.integers()),
        st.tuples(st.just("log"), st.just(""), st.integers()),
        st.tuples(st.just("look"), st.integers(0, 2), st.just(0)),
        st.tuples(st.just("clear"), st.just(""), st.just(0)),
    ),
    max_size=80,
)


@given(steps)
def test_whoever_takes_over_all_deltas_has_all_that_is_kept(todo):
    """Three copies that look at different moments, however long they did not."""
    source = LiveStore(points=7, log_lines=5)
    copies = [LiveStore(points=7, log_lines=5) for _ in range(3)]
    cursors: list = [None] * 3

    def look(i: int) -> None:
        message, cursors[i] = source.delta(cursors[i])
        if message is not None:
            copies[i].apply(message)

    for kind, name, value in todo:
        if kind == "set":
            source.set(**{name: value})
        elif kind == "row":
            source.append(name, {"value": value})
        elif kind == "log":
            source.write({"value": value})
        elif kind == "clear":
            source.clear(keep=["a"])
        else:
            look(name)
    for i, copy in enumerate(copies):
        look(i)
        assert copy.state == source.state
        assert {n: list(r.rows) for n, r in copy.series.items()} == {n: list(r.rows) for n, r in source.series.items()}
        assert list(copy.log.rows) == list(source.log.rows)
