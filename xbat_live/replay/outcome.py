"""What a replay came to."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from xbat_live.replay.choosing import Served
from xbat_live.replay.recording import Decision


@dataclass(frozen=True)
class Outcome:
    """What a replay came to.

    Attributes
    ----------
    decisions
        In order.
    served
        Which recorded exposure was served for each one that the plan made.
    verdicts
        One per frame of the sample: the fields of the stream ``analysis``, and ``after`` (recorded frame), ``how`` and ``why`` it was
        served.
    spots
        Fields of the stream ``spots``.
    ended
        How the plan ended.
    notes
        For people.
    """

    decisions: tuple[Decision, ...]
    served: tuple[Served, ...]
    verdicts: tuple[dict[str, Any], ...]
    spots: tuple[dict[str, Any], ...] = ()
    ended: str = ""
    notes: tuple[str, ...] = ()


def inputs_of(held: dict[str, Any], key: str = "inputs") -> dict[str, Any]:
    """Return the inputs of a decision record, which are kept as a JSON object."""
    try:
        found = json.loads(held.get(key) or "{}")
    except (TypeError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
