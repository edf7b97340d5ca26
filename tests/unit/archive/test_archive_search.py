"""What is asked of the server, what a time means, what a run comes to."""

from __future__ import annotations

import re
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from tiled.queries import Comparison, Eq, KeyPresent, Like, SpecsQuery
from tiled.query_registration import default_query_registry

from xbat_live.archive.search import Criteria, _filters, parse_time
from xbat_live.archive.summary import RunSummary

NOW = datetime(2026, 11, 28, 15, 30, tzinfo=timezone(timedelta(hours=1)))


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("today", "2026-11-28T00:00:00+01:00"),
        ("Yesterday", "2026-11-27T00:00:00+01:00"),
        ("30 min", "2026-11-28T15:00:00+01:00"),
        ("6h", "2026-11-28T09:30:00+01:00"),
        ("1.5 d", "2026-11-27T03:30:00+01:00"),
        ("2 w", "2026-11-14T15:30:00+01:00"),
        ("2026-11-21 14:30+02:00", "2026-11-21T14:30:00+02:00"),
    ],
)
def test_times_as_people_write_them(text, meant):
    assert parse_time(text, NOW) == datetime.fromisoformat(meant).timestamp()


@pytest.mark.parametrize("text", ["", "tomorrow", "6", "6 hours ago", "21.11.2026"])
def test_what_means_no_time_is_told(text):
    with pytest.raises(ValueError, match='is no time; write "today"'):
        parse_time(text, NOW)


@pytest.mark.parametrize(
    ("criteria", "queries"),
    [
        (Criteria(), []),
        (Criteria(since_s=1.5, until_s=2), [Comparison("ge", "start.time", 1.5), Comparison("lt", "start.time", 2)]),
        (Criteria(sample="a", plan="b%"), [Eq("start.sample", "a"), Like("start.plan_name", "b%")]),
        (Criteria(outcome="fail"), [Eq("stop.exit_status", "fail")]),
        (Criteria(outcome="time is up"), [Like("summary.outcome", "%time is up%")]),
        (Criteria(outcome="running"), [KeyPresent("stop", exists=False)]),
        (Criteria(least_dose_gy=1e3), [Comparison("ge", "summary.dose_gy", 1e3)]),
        (Criteria(most_dose_gy=5.0), [Comparison("le", "summary.dose_gy", 5.0)]),
    ],
)
def test_the_server_is_asked_as_tileds_own_client_would(criteria, queries):
    expected = {}
    for query in [SpecsQuery(["BlueskyRun"]), *queries]:
        name = default_query_registry.query_type_to_name[type(query)]
        for field, value in query.encode().items():
            told = str(value).lower() if isinstance(value, bool) else value
            expected.setdefault(f"filter[{name}][condition][{field}]", []).append(told)
    asked = _filters(criteria)
    assert {key: sorted(value) for key, value in asked.items()} == {k: sorted(v) for k, v in expected.items()}


def summarised(*, stop=None, ending=None):
    summary = RunSummary()
    summary("start", {"uid": "r", "time": 100.0})
    for stream in ("primary", "analysis", "decision", "spots"):
        summary("descriptor", {"uid": stream, "name": stream})

    def event(stream, **data):
        summary("event", {"descriptor": stream, "data": data})

    event("primary", point_dose_gy=1e3)
    event("primary", point_dose_gy=float("nan"))
    event("analysis", analysis_accepted=1)
    event("analysis", analysis_accepted=0)
    event("decision", decision_action="relocate", decision_reason="full")
    event("spots", spot_dose_gy=5e3)
    if ending:
        event("decision", decision_action="end", decision_reason=ending)
    if stop:
        summary("stop", {"time": 160.0, **stop})
    return summary.result()


@pytest.mark.parametrize(
    ("stop", "ending", "outcome"),
    [
        ({"exit_status": "success", "reason": ""}, "time is up", "time is up"),
        ({"exit_status": "success", "reason": ""}, None, "success"),
        ({"exit_status": "fail", "reason": "shutter"}, "completed", "fail: shutter"),
        ({"exit_status": "abort", "reason": ""}, None, "abort"),
        (None, None, "running"),
    ],
)
def test_summary_of_a_run(stop, ending, outcome):
    told = summarised(stop=stop, ending=ending)
    counts = {"frames": 2, "accepted": 1, "rejected": 1, "relocations": 1, "dose_gy": 5e3}
    assert told == counts | {"outcome": outcome, "duration_s": 60.0 if stop else 0.0}


def test_the_summary_is_documented_key_by_key():
    page = Path(__file__).resolve().parents[3] / "docs" / "reference" / "streams.md"
    _, _, section = page.read_text().partition("\n## Summary\n")
    assert set(re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE)) == set(summarised())


def test_summary_counts_pages_and_leaves_out_a_dose_that_nobody_counted():
    summary = RunSummary()
    summary("start", {"uid": "r", "time": 0.0})
    summary("descriptor", {"uid": "d", "name": "primary"})
    page = {
        "descriptor": "d",
        "seq_num": [1, 2, 3],
        "time": [1, 2, 3],
        "uid": ["a", "b", "c"],
        "data": {"x": [1, 2, 3]},
    }
    summary("event_page", page | {"timestamps": {"x": [1, 2, 3]}, "filled": {}})
    assert (summary.result()["frames"], "dose_gy" in summary.result()) == (3, False)
