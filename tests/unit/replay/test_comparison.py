"""Every decision is the same, different, new or missing."""

import pytest
from replay_support import exposure, recording

from xbat_live.replay.choosing import STAND_IN, Served
from xbat_live.replay.comparison import DIFFERENT, MISSING, NEW, SAME, compare
from xbat_live.replay.outcome import Outcome
from xbat_live.replay.recording import Decision
from xbat_live.replay.show import would_have


def took(action, after, **more):
    return Decision(action, more.pop("reason", f"{action} because"), more.pop("frame", after), after, **more)


def compared(recorded, replayed):
    return compare(recording([exposure(0)], recorded), Outcome(tuple(replayed), (), ()))


RUN = (took("start", 0), took("correct_drift", 2, inputs={"drift_x_um": 0.5}), took("relocate", 9), took("end", 12))


@pytest.mark.parametrize(
    ("replayed", "statuses", "reason"),
    [
        (RUN, [SAME] * 4, "nothing changed"),
        (
            (RUN[0], took("correct_drift", 2, inputs={"drift_x_um": 0.5004}), *RUN[2:]),
            [SAME] * 4,
            "within the tolerance",
        ),
        (
            (RUN[0], took("correct_drift", 2, inputs={"drift_x_um": 0.6}), *RUN[2:]),
            [SAME, DIFFERENT, SAME, SAME],
            "inputs",
        ),
        ((RUN[0], RUN[1], took("relocate", 4), RUN[3]), [SAME, SAME, DIFFERENT, SAME], "the same at another frame"),
        ((RUN[0], *RUN[2:]), [SAME, MISSING, SAME, SAME], "one less"),
        ((*RUN[:3], took("retake", 10), RUN[3]), [SAME, SAME, SAME, NEW, SAME], "one more"),
        (
            (RUN[0], took("correct_drift", 5, inputs={"drift_x_um": 0.5}), *RUN[2:]),
            [SAME, NEW, MISSING, SAME, SAME],
            "what rests on a picture is not that of another picture",
        ),
        ((*RUN[:3], took("end", 12, reason="halted")), [SAME, SAME, SAME, DIFFERENT], "another reason"),
    ],
)
def test_decisions_are_paired(replayed, statuses, reason):
    found = compared(RUN, replayed)
    assert sorted(item.status for item in found.decisions) == sorted(statuses), reason
    assert found.agrees == (set(statuses) == {SAME})


def test_an_earlier_relocation_is_told_in_words():
    (line,) = would_have(compared(RUN, (RUN[0], RUN[1], took("relocate", 4), RUN[3])))
    assert line.startswith("would have relocated at frame 5 instead of frame 10")


def test_another_verdict_is_no_agreement_and_a_stand_in_none_to_compare():
    run = recording([exposure(0), exposure(1)], RUN[:1])
    run.verdicts.update({1: "accepted", 2: "accepted"})
    verdicts = (
        {"after": 1, "how": "recorded", "verdict": "blurred"},
        {"after": 1, "how": STAND_IN, "verdict": "lost"},
    )
    found = compare(run, Outcome(RUN[:1], (Served(exposure(0)),), verdicts))
    assert found.other_verdicts == ((1, "accepted", "blurred"),)
    assert found.first_stand_in == 2
    assert not found.agrees


def test_frames_alone_have_nothing_to_disagree_with():
    found = compared((), RUN)
    assert found.agrees
    assert found.count(NEW) == len(RUN)
