"""A replay in words, and as plain data for machines."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

from xbat_live.replay.comparison import DIFFERENT, MISSING, NEW, SAME, Comparison
from xbat_live.replay.outcome import Outcome
from xbat_live.replay.recording import Recording

_DONE = {
    "relocate": "relocated",
    "halt": "halted",
    "rest": "rested",
    "attenuate": "attenuated the beam",
    "retire": "retired the location",
}


def lines(recording: Recording, outcome: Outcome, comparison: Comparison, *, took_s: float) -> Iterator[str]:
    """Yield a replay in lines."""
    start = recording.start
    what = ", ".join(filter(None, (start.get("plan_name"), start.get("sample"))))
    yield f"{recording.source} ({what}): {recording.frames} frames, {len(recording.decisions)} decisions, {recording.duration_s:.1f} s"
    faster = f", {recording.duration_s / took_s:.3g} times real time" if took_s > 0 and recording.duration_s > 0 else ""
    yield f"replayed in {took_s:.2f} s{faster}; the plan ended: {outcome.ended}"
    for note in (*recording.notes, *outcome.notes):
        yield f"note: {note}"
    yield from would_have(comparison)
    if comparison.nothing_recorded:
        yield "frames alone: there is nothing to compare with; what the plan decided:"
        for item in comparison.decisions:
            yield f"{item.decision.action:<15} after frame {item.decision.frame}: {item.decision.reason}"
        kinds = Counter(str(record["verdict"]) for record in outcome.verdicts)
        yield f"verdicts: {', '.join(f'{count} {name}' for name, count in kinds.items()) or 'none'}"
        return
    for item in comparison.decisions:
        if item.status != SAME:
            yield f"{item.status:<10} {item.decision.action:<15} {item.what}"
    if comparison.first_stand_in is not None:
        yield (
            f"from frame {comparison.first_stand_in} on there were no recorded pictures of what the plan asked for "
            f"({comparison.served.get('stand-in', 0)} exposures got another one): what rests on pictures there is no evidence, doses are"
        )
    for frame, before, now in comparison.other_verdicts:
        yield f"different  verdict         frame {frame} {now} instead of {before}"
    counts = ", ".join(f"{comparison.count(status)} {status}" for status in (SAME, DIFFERENT, NEW, MISSING))
    verdicts = comparison.same_verdicts + len(comparison.other_verdicts)
    yield f"{len(comparison.decisions)} decisions: {counts}; {comparison.same_verdicts} of {verdicts} verdicts the same"


def would_have(comparison: Comparison) -> Iterator[str]:
    """Yield what the run would have done at a limit, where it did not or did so at another frame."""
    for item in comparison.decisions:
        decision = item.replayed
        if decision is None or decision.action not in _DONE or item.status not in (NEW, DIFFERENT):
            continue
        if item.recorded is not None and item.recorded.after == decision.after:
            continue
        instead = f" instead of frame {item.recorded.frame + 1}" if item.recorded is not None else ""
        yield f"would have {_DONE[decision.action]} at frame {decision.frame + 1}{instead}: {decision.reason}"


def as_dict(recording: Recording, outcome: Outcome, comparison: Comparison, *, took_s: float) -> dict[str, Any]:
    """Return a replay as plain data."""
    return {
        "run": recording.uid,
        "source": recording.source,
        "plan_name": recording.start.get("plan_name"),
        "sample": recording.start.get("sample"),
        "frames": recording.frames,
        "duration_s": recording.duration_s,
        "took_s": took_s,
        "ended": outcome.ended,
        "agrees": comparison.agrees,
        "counts": {status: comparison.count(status) for status in (SAME, DIFFERENT, NEW, MISSING)},
        "same_verdicts": comparison.same_verdicts,
        "other_verdicts": [
            {"frame": frame, "recorded": before, "replayed": now} for frame, before, now in comparison.other_verdicts
        ],
        "would_have": list(would_have(comparison)),
        "served": comparison.served,
        "first_stand_in": comparison.first_stand_in,
        "decisions": [item.as_dict() for item in comparison.decisions],
        "notes": [*recording.notes, *outcome.notes],
    }
