"""Every decision of a replay against the recorded one: same, different, new, missing."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from difflib import SequenceMatcher
from typing import Any

from xbat_live.replay.choosing import RECORDED, STAND_IN
from xbat_live.replay.outcome import Outcome
from xbat_live.replay.recording import Decision, Recording

SAME, DIFFERENT, NEW, MISSING = "same", "different", "new", "missing"
RELATIVE, ABSOLUTE = 1e-3, 1e-3
"""Numbers closer than this are the same: a thousandth, or a thousandth of their unit (a nanometre of a drift)."""
_NUMBER = re.compile(r"[-+]?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?")
_OF_PICTURES = ("retake", "keep_rejected", "correct_drift", "stop_correcting", "alarm", "calibrate")
_REFUSALS = ("relocate", "halt", "rest", "attenuate", "retire")


@dataclass(frozen=True)
class Compared:
    """One decision, recorded, of the replay, or both.

    Attributes
    ----------
    status
        ``same``, ``different``, ``new`` (only the replay took it) or ``missing`` (only the run did).
    what
        What differs, for people; empty when nothing does.
    """

    status: str
    recorded: Decision | None
    replayed: Decision | None
    what: str = ""

    @property
    def decision(self) -> Decision:
        """That of the replay if there is one."""
        found = self.replayed or self.recorded
        assert found is not None
        return found

    def as_dict(self) -> dict[str, Any]:
        """Return plain data."""
        return {
            "status": self.status,
            "action": self.decision.action,
            "what": self.what,
            "recorded": _plain(self.recorded),
            "replayed": _plain(self.replayed),
        }


@dataclass(frozen=True)
class Comparison:
    """All decisions of a replay and its recording.

    Attributes
    ----------
    decisions
        In the order of the replay, with the missing ones where they were.
    verdicts
        Frames whose verdict is the recorded one, and those with another: (frame, recorded, replayed).
    served
        How many exposures were played as ``recorded``, ``moved`` and as ``stand-in``.
    nothing_recorded
        The recording holds no decisions: frames alone.
    first_stand_in
        Frame of the replay, from 1, that was the first without a recorded picture; None: all had one.
    """

    decisions: tuple[Compared, ...]
    same_verdicts: int = 0
    other_verdicts: tuple[tuple[int, str, str], ...] = ()
    served: dict[str, int] = field(default_factory=dict)
    first_stand_in: int | None = None
    nothing_recorded: bool = False

    @property
    def agrees(self) -> bool:
        """True when every decision and every verdict is the recorded one."""
        return self.nothing_recorded or (
            all(item.status == SAME for item in self.decisions) and not self.other_verdicts
        )

    def count(self, status: str) -> int:
        """Return the number of decisions with a status."""
        return sum(item.status == status for item in self.decisions)


def compare(recording: Recording, outcome: Outcome) -> Comparison:
    """Compare the decisions and verdicts of a replay with the recorded ones.

    Decisions are paired by what was done and after which recorded frame; what is left, by what was done, in order, except for
    decisions that rest on pictures: a retake of one frame is not that of another.
    """
    other, same = [], 0
    for record in outcome.verdicts:
        if record["how"] == STAND_IN or record["after"] not in recording.verdicts:
            continue
        known, found = recording.verdicts[record["after"]], str(record["verdict"])
        same += known == found
        if known != found:
            other.append((int(record["after"]), known, found))
    how = [record["how"] for record in outcome.verdicts]
    return Comparison(
        tuple(_paired(recording.decisions, outcome.decisions)) if recording.decisions else _all_new(outcome.decisions),
        same,
        tuple(other),
        dict(Counter(item.how for item in outcome.served)),
        how.index(STAND_IN) + 1 if STAND_IN in how else None,
        not recording.decisions,
    )


def _all_new(decisions: Sequence[Decision]) -> tuple[Compared, ...]:
    return tuple(Compared(NEW, None, decision, _when(decision)) for decision in decisions)


def _paired(recorded: Sequence[Decision], replayed: Sequence[Decision]) -> Iterator[Compared]:
    keys = [[(decision.action, decision.after) for decision in side] for side in (recorded, replayed)]
    left: list[int] = []  # of the recorded ones
    partners: dict[int, int] = {}
    matcher = SequenceMatcher(None, keys[0], keys[1], autojunk=False)
    matched = set()
    for block in matcher.get_matching_blocks():
        for offset in range(block.size):
            partners[block.b + offset] = block.a + offset
            matched.add(block.a + offset)
    left = [index for index in range(len(recorded)) if index not in matched]
    for index, decision in enumerate(replayed):  # the same thing at another frame
        if index not in partners and decision.action not in _OF_PICTURES:
            found = next((i for i in left if recorded[i].action == decision.action), None)
            if found is not None:
                partners[index] = found
                left.remove(found)
    for index, decision in enumerate(replayed):
        before = partners.get(index)
        while left and before is not None and left[0] < before:
            yield _missing(recorded[left.pop(0)])
        yield Compared(NEW, None, decision, _when(decision)) if before is None else _judged(recorded[before], decision)
    for index in left:
        yield _missing(recorded[index])


def _missing(decision: Decision) -> Compared:
    return Compared(MISSING, decision, None, f"the run did it {_at(decision)}")


def _judged(recorded: Decision, replayed: Decision) -> Compared:
    differences = list(_differences(recorded, replayed))
    return Compared(DIFFERENT if differences else SAME, recorded, replayed, "; ".join(differences))


def _differences(recorded: Decision, replayed: Decision) -> Iterator[str]:
    if recorded.after != replayed.after:
        yield f"{_at(replayed)} instead of {_at(recorded, bare=True)}"
    if recorded.spot != replayed.spot:
        yield f"spot {replayed.spot} instead of {recorded.spot}"
    if not same_value(recorded.threshold, replayed.threshold):
        yield f"threshold {replayed.threshold:g} instead of {recorded.threshold:g}"
    for name in sorted(recorded.inputs.keys() & replayed.inputs.keys()):
        before, now = recorded.inputs[name], replayed.inputs[name]
        if not same_value(before, now):
            yield f"{name} {_shown(now)} instead of {_shown(before)}"
    if _words(recorded.reason) != _words(replayed.reason):
        yield f"reason {replayed.reason!r} instead of {recorded.reason!r}"


def same_value(one: Any, other: Any) -> bool:
    """Return True when two inputs of a decision are the same within `RELATIVE` or `ABSOLUTE`."""
    numbers = (int, float)
    if isinstance(one, numbers) and isinstance(other, numbers):
        if math.isnan(one) or math.isnan(other):
            return math.isnan(one) and math.isnan(other)
        return math.isclose(one, other, rel_tol=RELATIVE, abs_tol=ABSOLUTE)
    return bool(one == other)


def _words(reason: str) -> str:
    """Return a reason without its numbers, which the inputs hold."""
    return _NUMBER.sub("#", reason)


def _shown(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _at(decision: Decision, *, bare: bool = False) -> str:
    """Return when it was: a refusal was at the frame that was not taken, everything else after the last one."""
    if decision.action in _REFUSALS:
        return f"frame {decision.frame + 1}" if bare else f"at frame {decision.frame + 1}"
    return f"after frame {decision.frame}" if not bare else f"frame {decision.frame}"


def _when(decision: Decision) -> str:
    made_up = "" if decision.fidelity == RECORDED else f", on {decision.fidelity} pictures"
    return (
        f"the run did not{made_up}"
        if decision.action not in _REFUSALS
        else f"it would have done so {_at(decision)}{made_up}"
    )


def _plain(decision: Decision | None) -> dict[str, Any] | None:
    if decision is None:
        return None
    threshold = None if math.isnan(decision.threshold) else decision.threshold
    return {
        "action": decision.action,
        "reason": decision.reason,
        "frame": decision.frame,
        "after": decision.after,
        "spot": decision.spot,
        "inputs": decision.inputs,
        "threshold": threshold,
        "time_s": None if math.isnan(decision.time_s) else decision.time_s,
        "pictures": decision.fidelity,
    }
